#!/usr/bin/env python3
"""The table and the JSON line of perf/limits: medians over the rounds, and ratios of medians of the same run."""

import json
import os
import platform
import statistics
import sys

path, commit, rustc, messages, writes, rows = sys.argv[1:]
found = {}
for line in open(path):
    entry = json.loads(line)
    found.setdefault(entry["name"], []).append(entry["line"])


def median(name, figure):
    return statistics.median(line[figure] for line in found[name])


print(f"\n{'':10}{'messages/s':>12}{'(lowest':>12}{'highest)':>12}{'CPU us/message':>16}", file=sys.stderr)
for name in found:
    rates = [line["messages_per_s"] for line in found[name]]
    print(
        f"{name:10}{statistics.median(rates):12,.0f}{min(rates):12,.0f}{max(rates):12,.0f}"
        f"{median(name, 'cpu_us_per_message'):16.2f}",
        file=sys.stderr,
    )


def ratio(one, other):
    return round(median(one, "messages_per_s") / median(other, "messages_per_s"), 3)


figures = {
    "discard_of_raw": ratio("discard", "raw"),
    "null_cpu_us_per_message": round(median("null", "cpu_us_per_message"), 2),
    "postgres_of_direct": ratio("postgres", "direct"),
    "postgres_cpu_us_per_message": round(median("postgres", "cpu_us_per_message"), 2),
    "hot_of_uniform": ratio("hot", "postgres"),
}
targets = {
    "discard_of_raw": ">= 0.90",
    "null_cpu_us_per_message": "<= 3",
    "postgres_of_direct": ">= 0.85",
    "postgres_cpu_us_per_message": "<= 5",
    "hot_of_uniform": ">= 1.1",
}
print(file=sys.stderr)
for name, figure in figures.items():
    print(f"{name:32}{figure:8}   target {targets[name]}", file=sys.stderr)
with open("/proc/cpuinfo") as cpuinfo:
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
environment = {
    "cpu": models[0] if models else platform.machine(),
    "cores": os.cpu_count(),
    "kernel": platform.release(),
    "rustc": rustc,
    "commit": commit,
    "kafka": "4.1.0, one broker",
    "postgres": "one server, fillfactor 70, autovacuum off, synchronous_commit on",
    "messages": int(messages),
    "writes": int(writes),
    "rows": int(rows),
    "rounds": len(found["raw"]),
}
rates = {f"{name}_messages_per_s": round(median(name, "messages_per_s")) for name in found}
print(json.dumps({**figures, **rates, "environment": environment}))
