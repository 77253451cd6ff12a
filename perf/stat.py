#!/usr/bin/env python3
"""What perf/stat counts, and tells.

stat.py count PID DIR              until SIGINT; writes DIR/threads (from /proc) and DIR/counters (by perf stat)
stat.py report DIR MESSAGES GIVEN  of these, and of DIR/syscalls (by perf trace): the table and the JSON line
"""

import collections
import glob
import json
import re
import signal
import subprocess
import sys
import time

from roles import ROLES, role_of

COUNTERS = ("instructions", "cycles", "cache-references", "cache-misses")
# Of figures that are rare for one message.
MANY = 1000


def read(path):
    with open(path) as file:
        return file.read()


def threads(pid):
    """By number: the name, and what the kernel has counted since the thread began."""
    found = {}
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            name = read(f"{task}/comm").strip()
            stat = read(f"{task}/stat").rsplit(") ", 1)[1].split()
            ran_ns, waited_ns, _ = map(int, read(f"{task}/schedstat").split())
            switches = dict(re.findall(r"^(\w+)_ctxt_switches:\s+(\d+)$", read(f"{task}/status"), re.M))
        except OSError:
            continue  # It has ended meanwhile.
        found[task.rsplit("/", 1)[1]] = name, {
            "cpu_us": ran_ns / 1000,
            "user_ticks": int(stat[11]),
            "system_ticks": int(stat[12]),
            "runnable_us": waited_ns / 1000,
            "voluntary": int(switches["voluntary"]),
            "involuntary": int(switches["nonvoluntary"]),
            "minor_faults": int(stat[7]),
            "major_faults": int(stat[9]),
        }
    return found


def count(pid, out):
    """Of threads that end meanwhile only perf's counters have the share; those are the administration's, and few."""
    signal.signal(signal.SIGINT, lambda *_: None)
    perf = subprocess.Popen(["perf", "stat", "--per-thread", "-x,", "-e", ",".join(COUNTERS), "-o", f"{out}/counters", "-p", pid])
    time.sleep(1)
    before, began = threads(pid), time.monotonic()
    signal.pause()
    after, seconds = threads(pid), time.monotonic() - began
    perf.send_signal(signal.SIGINT)
    perf.wait()
    counted = []
    for number, (name, values) in after.items():
        old = before.get(number, (name, {}))[1]
        counted.append({"thread": name, **{key: value - old.get(key, 0) for key, value in values.items()}})
    with open(f"{out}/threads", "w") as file:
        json.dump({"seconds": seconds, "threads": counted}, file)


def counters(path):
    """Sums by role and event; of an event that is not counted here the reason, in place of all sums."""
    sums = {event: collections.Counter() for event in COUNTERS}
    for line in read(path).splitlines():
        fields = line.split(",")
        if line.startswith("#") or len(fields) < 4:
            continue
        thread, value = fields[:2]
        # With two kinds of cores there is a counter for each, as in cpu_core/cycles/.
        event = next(event for event in COUNTERS if event in fields[3])
        if value == "<not supported>":
            sums.pop(event, None)
        elif value != "<not counted>":  # That is a thread that never ran.
            sums[event][role_of(thread)] += int(value)
    why = "not counted by this CPU" if "cycles" in sums else "no hardware counters"
    return {event: sums.get(event, f"not here: {why}") for event in COUNTERS}


def syscalls(path):
    """Calls by role and name, or the reason why there are none."""
    text = read(path)
    if text.startswith("not here"):
        return text.strip()
    if "LOST" in text:
        return "not here: perf trace lost some; try fewer messages or a lower rate"
    calls, role = {role: collections.Counter() for role, _ in ROLES}, None
    for line in text.splitlines():
        if thread := re.match(r"^ (\S.*) \(\d+\), \d+ events", line):
            role = role_of(thread[1])
        elif role and (call := re.match(r"^   (\w+)\s+(\d+)\s+\d+\s+[\d.]+", line)):
            calls[role][call[1]] += int(call[2])
    for called in calls.values():
        # How each that was interrupted by perf/profile.sh's SIGSTOP goes on.
        called.pop("restart_syscall", None)
    return calls


def rounded(value):
    return float(f"{value:.4g}")


def figures(role, of, messages, counted, called):
    """One role's, by name, in the order of the table; text where there is no figure."""
    total = collections.Counter()
    for thread in of:
        total.update({key: value for key, value in thread.items() if key != "thread"})
    ticks = total["user_ticks"] + total["system_ticks"]
    # The kernel tells both only in ticks, the sum in nanoseconds.
    tick_us = total["cpu_us"] / ticks if ticks else 0
    found = {
        "threads": len(of),
        "cpu_us": total["cpu_us"] / messages,
        "user_us": tick_us * total["user_ticks"] / messages,
        "system_us": tick_us * total["system_ticks"] / messages,
        "runnable_us": total["runnable_us"] / messages,
    }
    for key in ("voluntary", "involuntary", "minor_faults", "major_faults"):
        found[f"{key}_per_1000"] = total[key] * MANY / messages
    roles = [name for name, _ in ROLES] if role == "all" else [role]
    for event, sums in counted.items():
        found[event.replace("-", "_")] = sums if isinstance(sums, str) else sum(sums[name] for name in roles) / messages
    instructions, cycles = found["instructions"], found["cycles"]
    found["ipc"] = next((each for each in (instructions, cycles) if isinstance(each, str)), None) or (instructions / cycles if cycles else 0)
    if isinstance(called, str):
        found["syscalls_per_1000"] = called
    else:
        calls = sum((called[name] for name in roles), collections.Counter())
        found["syscalls_per_1000"] = {name: rounded(number * MANY / messages) for name, number in calls.most_common()}
    return {key: rounded(value) if isinstance(value, float) else value for key, value in found.items()}


def table(by_role):
    """Rows are figures, columns are roles. What is not here is said once."""
    columns = list(by_role)
    rows = {key: [of[key] for of in by_role.values()] for key in by_role["all"] if key != "syscalls_per_1000"}
    calls = [of["syscalls_per_1000"] for of in by_role.values()]
    if isinstance(calls[0], str):
        rows["syscalls_per_1000"] = calls
    else:
        rows["syscalls_per_1000"] = [sum(of.values()) for of in calls]
        rows.update({f"  {name}": [of.get(name, 0) for of in calls] for name in list(calls[0])[:8]})
    print("\na message, or 1,000 messages\n" + " " * 26 + "".join(f"{column:>12}" for column in columns), file=sys.stderr)
    for key, values in rows.items():
        told = values[0] if isinstance(values[0], str) else "".join(f"{value:12,.5g}" for value in values)
        print(f"{key:26}{told}", file=sys.stderr)


def report(out, messages, given):
    found = json.loads(read(f"{out}/threads"))
    counted, called = counters(f"{out}/counters"), syscalls(f"{out}/syscalls")
    by_role = {}
    for role in ["all", *(role for role, _ in ROLES)]:
        of = [thread for thread in found["threads"] if role in ("all", role_of(thread["thread"]))]
        by_role[role] = figures(role, of, messages, counted, called)
    table(by_role)
    print(json.dumps({"messages": messages, "seconds": rounded(found["seconds"]), "roles": by_role, "environment": json.loads(given)}))


if sys.argv[1] == "count":
    count(*sys.argv[2:])
else:
    report(sys.argv[2], int(sys.argv[3]), sys.argv[4])
