#!/usr/bin/env python3
"""What perf/edge does besides measuring.

edge.py put ADDRESS            a few updates of every shape that both servers take; prints how many messages they make
edge.py alike PARTITIONS       reads the messages that both servers made of these, as the console consumer prints them with
                               partition and key, and fails unless each is there twice, on its app's partition
edge.py process PID            CPU seconds, resident bytes and sockets of a process
edge.py fast WARMED LINE BEFORE AFTER CONNECTIONS
                               what two runs of wrk saw, and what the server's process did in the second
edge.py crowd SIZE ALONE PROCESS BESIDE PROCESS GATHERED
                               what the traffic at a fixed rate saw without and with the crowd, what the server's process was
                               then, and what the crowd saw; fails unless the crowd was there all the time
edge.py counted MESSAGES LINE  fails unless so many messages can come of what the clients saw: accepted <= messages <= sent
edge.py say fast|crowd LINE    a line for people
"""

import collections
import json
import os
import sys
import urllib.request
import uuid

from incident import partition_of

APPS = 8

BODIES = [
    {"tags": {"first_name": "Zoë", "plan": "team", "level": 17, "vip": True, "gone": None, "empty": ""}},
    {"tags": {"balance": -12.5, "title": 'a "quoted" \\ title', "日本": "語"}, "counts": {"sessions": 1, "credits": -20}},
    {"counts": {"large": 2**62}},
    {},
]


def an_id(*of):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(of)))


def put(server):
    """The same each time, so that both servers get the same."""
    messages = 0
    for app in range(APPS):
        for number, body in enumerate(BODIES):
            mirror = {"mirror_to": an_id("parent", app)} if app == number else {}
            request = urllib.request.Request(
                f"http://{server}/api/v1/players/{an_id('row', app, number)}",
                json.dumps({"app_id": an_id("app", app), **body, **mirror}).encode(),
                {"Content-Type": "application/json"},
                method="PUT",
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                if json.load(answer) != {"success": True}:
                    sys.exit("the answer is not that of success")
            messages += 1 + len(mirror)
    return messages


def alike(partitions):
    found = collections.Counter()
    for line in sys.stdin:
        partition, key, value = line.rstrip("\n").split("\t")
        update = json.loads(value)
        if partition != f"Partition:{partition_of(update['app_id'], partitions)}":
            sys.exit(f"not the partition of its app: {line}")
        if key != update["subscription_id"]:
            sys.exit(f"not the key of its row: {line}")
        # No tags and empty tags are the same.
        found[json.dumps({name: value for name, value in update.items() if value != {}}, sort_keys=True)] += 1
    odd = [update for update, count in found.items() if count != 2]
    if odd or not found:
        sys.exit("messages that not both made:\n" + "\n".join(odd))


def counted(messages, seen):
    if not seen["accepted"] <= messages <= seen["sent"]:
        sys.exit(f"{messages} messages, but accepted {seen['accepted']}, sent {seen['sent']}")


def process(pid):
    """CPU seconds so far, resident bytes and open sockets."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    # What /proc has elsewhere is rounded by thread.
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        resident = next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Rss:"))
    folder = f"/proc/{pid}/fd"
    sockets = 0
    for name in os.listdir(folder):
        try:
            sockets += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return {
        "cpu_s": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        "resident": resident,
        "sockets": sockets,
    }


def fast(warmed, line, before, after, connections):
    for run in warmed, line:
        if run["refused"] or run["errors"]:
            sys.exit(f"refused {run['refused']}, errors {run['errors']}")
    cpu = after["cpu_s"] - before["cpu_s"]
    accepted = warmed["requests"] + line["requests"]
    return {
        **line,
        "messages_per_s": line["requests"] / line["seconds"],
        "requests_per_cpu_s": line["requests"] / cpu,
        "cpu_us_per_message": cpu / line["requests"] * 1e6,
        "resident_mib": after["resident"] / 2**20,
        "accepted": accepted,
        # What wrk was still waiting for when it ended may be in Kafka all the same.
        "sent": accepted + 2 * connections,
    }


def crowd(size, alone, process_alone, beside, process_beside, gathered):
    sockets = process_beside["sockets"] - process_alone["sockets"]
    # Those that have been cut are opened again at once.
    if min(sockets, gathered["open_mean"]) < 0.98 * size:
        sys.exit(f"{sockets} more sockets in the server, {gathered['open_mean']} of {size} connections open")
    if gathered["failed"] > 0.01 * size:
        sys.exit(f"{gathered['failed']} connections failed")
    return {
        **beside,
        "p99_alone_ms": alone["p99_ms"],
        "resident_alone_mib": process_alone["resident"] / 2**20,
        "resident_mib": process_beside["resident"] / 2**20,
        "bytes_per_connection": (process_beside["resident"] - process_alone["resident"]) / size,
        "crowd": gathered,
        **{key: alone[key] + beside[key] + gathered[key] for key in ["accepted", "sent"]},
    }


SAYS = {
    "fast": "{messages_per_s:.0f} requests/s, {requests_per_cpu_s:.0f} a CPU second, p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, "
    "{resident_mib:.0f} MiB",
    "crowd": "p99 {p99_alone_ms:.2f} ms without, {p99_ms:.2f} ms with them (client late {late_p99_ms:.2f} ms), "
    "{resident_alone_mib:.0f} and {resident_mib:.0f} MiB, {bytes_per_connection:.0f} bytes a connection; "
    "cut: {crowd[timed_out]} with 408, {crowd[closed]} without",
}


def main(arguments):
    match arguments:
        case ["put", server]:
            print(put(server))
        case ["alike", partitions]:
            alike(int(partitions))
        case ["counted", messages, line]:
            counted(int(messages), json.loads(line))
        case ["process", pid]:
            print(json.dumps(process(pid)))
        case ["fast" | "crowd" as what, *seen]:
            print(json.dumps(globals()[what](*map(json.loads, seen))))
        case ["say", what, line]:
            print(SAYS[what].format(**json.loads(line)))
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
