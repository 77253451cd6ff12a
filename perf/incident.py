#!/usr/bin/env python3
"""What perf/incident sees of a consumer, and what it makes of that. All partitions are those of one shard.

incident.py watch OUT SECONDS COMMAND...     runs a consumer for so long, which begins when it is ready, and looks at it all the
                                             time; leaves OUT.ready (its admin address) then, and OUT (the samples) at the end
incident.py signature OUT CHANGE PARTITIONS APP
                                             what a consumer was like before second CHANGE and what it is like at the end: one
                                             JSON line on stdout, a picture on stderr
incident.py delays PARTITIONS APP FROM TO    rows on other partitions than APP's that were sent in that time (seconds since 1970):
                                             how many, and their delays. Each line of stdin is app_id|sent|committed
incident.py parent APP                       the id of the row that all children of clothes.ly have as parent
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

EMAIL = "admin@clothes.ly"
LOOKS_PER_SECOND = 10
READY_SECONDS_MAX = 60
END_SECONDS_MAX = 40
BARS = "▁▂▃▄▅▆▇█"

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
)


def partition_of(app, partitions):
    """xxh3_64 of the 16 bytes, modulo the partitions: XXH3_len_9to16_64b of github.com/Cyan4973/xxHash."""

    def word(data, at):
        return int.from_bytes(data[at : at + 8], "little")

    data = uuid.UUID(app).bytes
    low = word(data, 0) ^ word(SECRET, 24) ^ word(SECRET, 32)
    high = word(data, 8) ^ word(SECRET, 40) ^ word(SECRET, 48)
    product, mask = low * high, (1 << 64) - 1
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    hashed = (16 + swapped + high + ((product & mask) ^ (product >> 64))) & mask
    hashed ^= hashed >> 37
    hashed = (hashed * 0x165667919E3779F9) & mask
    return (hashed ^ (hashed >> 32)) % partitions


def metrics(address):
    """Name to a list of (labels, value)."""
    found = {}
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
        for line in page.read().decode().splitlines():
            if line.startswith("#") or not line:
                continue
            series, value = line.rsplit(" ", 1)
            name, _, labels = series.partition("{")
            found.setdefault(name, []).append((labels, float(value)))
    return found


def label(labels, name):
    return labels.split(f'{name}="', 1)[1].split('"', 1)[0]


def by_partition(found, name):
    return {int(label(labels, "partition")): value for labels, value in found.get(name, [])}


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def look(address, pid):
    found = metrics(address)
    connections = found.get("millpond_connections", [])
    return {
        "at": time.monotonic(),
        "cpu_seconds": cpu_seconds(pid),
        "messages": sum(value for _, value in found.get("millpond_messages_total", [])),
        "lag": by_partition(found, "millpond_lag_messages"),
        "time_lag": by_partition(found, "millpond_time_lag_seconds"),
        "idle": sum(value for labels, value in connections if label(labels, "state") == "idle"),
        "connections": sum(value for _, value in connections),
    }


def wait_until_ready(address, process):
    until = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def watch(out, seconds, command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # Whoever ends this ends the consumer too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    process = subprocess.Popen(command + ["--set", f"admin.listen={address}"], stdout=subprocess.DEVNULL)
    try:
        if not wait_until_ready(address, process):
            sys.exit("the consumer is not ready")
        with open(f"{out}.ready", "w") as ready:
            ready.write(address)
        looks, began = [], time.monotonic()
        while time.monotonic() < began + seconds and process.poll() is None:
            looks.append(look(address, process.pid))
            time.sleep(1 / LOOKS_PER_SECOND)
        if process.poll() is not None:
            sys.exit("the consumer has ended")
        with open(out, "w") as samples:
            json.dump({"began": began, "looks": looks}, samples)
    finally:
        # What is in memory need not be finished: the second signal ends it at once.
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()


def per_second(samples, own):
    """One entry a second, over its looks."""
    looks, rows = samples["looks"], []
    for second in range(int(looks[-1]["at"] - samples["began"])):
        within = [look for look in looks if second <= look["at"] - samples["began"] < second + 1]
        if len(within) < 2:
            continue
        first, last = within[0], within[-1]
        elapsed = last["at"] - first["at"]
        others = [value for number, value in last["time_lag"].items() if int(number) != own]
        rows.append(
            {
                "second": second,
                "lag": sum(last["lag"].values()),
                "cores": (last["cpu_seconds"] - first["cpu_seconds"]) / elapsed,
                "messages_per_s": (last["messages"] - first["messages"]) / elapsed,
                "idle": statistics.mean(look["idle"] for look in within),
                "connections": last["connections"],
                "others_behind_s": statistics.mean(others) if others else 0.0,
            }
        )
    return rows


def picture(rows, change):
    for key, says in [
        ("lag", "lag, messages"),
        ("cores", "CPU of the consumer, cores"),
        ("idle", f"idle connections of {rows[-1]['connections']:.0f}"),
        ("messages_per_s", "messages finished a second"),
        ("others_behind_s", "other partitions behind, s"),
    ]:
        values = [row[key] for row in rows]
        top = max(values + [1e-9])
        bars = [BARS[min(7, int(8 * value / top))] for value in values]
        at = sum(row["second"] < change for row in rows)
        print(f"{says:28} {''.join(bars[:at])}|{''.join(bars[at:])}  highest {top:,.2f}", file=sys.stderr)


def signature(out, change, partitions, app):
    rows = per_second(json.load(open(out)), partition_of(app, partitions))
    last = rows[-1]["second"]
    # Each time begins with a producer that starts.
    before = [row for row in rows if change / 2 <= row["second"] < change]
    after = [row for row in rows if row["second"] >= (change + last) / 2]
    mean = lambda rows, key: statistics.mean(row[key] for row in rows)
    picture(rows, change)
    found = {}
    for key in ["lag", "cores", "messages_per_s", "others_behind_s"]:
        found[f"{key}_before"], found[f"{key}_after"] = mean(before, key), mean(after, key)
    for when, rows_then in [("before", before), ("after", after)]:
        found[f"idle_share_{when}"] = mean(rows_then, "idle") / mean(rows_then, "connections")
    found["lag_at_end"] = rows[-1]["lag"]
    found["cores_after_of_before"] = found["cores_after"] / found["cores_before"]
    return {key: round(value, 3) for key, value in found.items() if not key.startswith("messages_per_s")} | {
        "finished_per_s_before": round(found["messages_per_s_before"]),
        "finished_per_s_after": round(found["messages_per_s_after"]),
    }


def delays(partitions, app, begin, end):
    own, found, finished = partition_of(app, partitions), [], 0
    for line in sys.stdin:
        of, sent, committed = line.split("|")
        if partition_of(of, partitions) == own:
            continue
        if begin <= float(sent) < end:
            found.append((float(committed) - float(sent)) * 1000)
        finished += begin <= float(committed) < end
    found = sorted(found) or [float("nan")]
    at = lambda share: round(found[min(len(found) - 1, int(len(found) * share))], 2)
    return {
        "rows": sum(delay == delay for delay in found),
        "rows_per_s": round(finished / (end - begin), 1),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "max_ms": round(found[-1], 2),
    }


def main(arguments):
    match arguments:
        case ["watch", out, seconds, *command]:
            watch(out, int(seconds), command)
        case ["signature", out, change, partitions, app]:
            print(json.dumps(signature(out, int(change), int(partitions), app)))
        case ["delays", partitions, app, begin, end]:
            print(json.dumps(delays(int(partitions), app, float(begin), float(end))))
        case ["parent", app]:
            print(uuid.uuid5(uuid.UUID(app), EMAIL))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
