#!/usr/bin/env python3
"""The table and the JSON line of the measuring scripts: medians over the rounds, and figures of the same run.

report.py LINES KEY=VALUE... FIGURE...

LINES has one JSON object a line: name, and the JSON line that a command printed. KEY=VALUE goes to the environment, which
begins with what perf/environment found. A FIGURE is NAME=A/B>=TARGET, the ratio of messages/s of A and B;
NAME=A.KEY/B.KEY<=TARGET, that of a key; or NAME=A.KEY<=TARGET, the median of a key itself. B,C.KEY is the lower of the two in each
round. `?` in place of >=TARGET is a figure without a target. A ratio is the median of those of each round, since what slows a
machine down slows both of a round; where it was taken more than once, the lowest and the highest are told with it.

The table has a column for each key of MORE that a line has; the JSON line then has all of them, as [median, lowest, highest].
"""

import json
import re
import statistics
import sys

# Title, digits, and which of the rounds is shown: of what must not happen the worst.
MORE = {
    "postgres_cpu_us_per_message": ("Postgres CPU", 2, statistics.median),
    "peak_rss_mib": ("peak MiB", 0, max),
    "lost": ("rows lost", 0, max),
    "wrong": ("rows wrong", 0, max),
    "twice": ("twice", 0, max),
}

found = {}
for line in open(sys.argv[1]):
    entry = json.loads(line)
    found.setdefault(entry["name"], []).append(entry["line"])


def median(name, key):
    return statistics.median(line[key] for line in found[name])


def known(name, key):
    """Without the rounds, or the names, that have none."""
    return [line[key] for line in found[name] if line.get(key) is not None]


def values_of(of):
    names, _, key = of.partition(".")
    rounds = zip(*([line[key or "messages_per_s"] for line in found[name]] for name in names.split(",")))
    return [min(values) for values in rounds]


def figure(of):
    """Its median, lowest and highest."""
    if "/" not in of:
        values, digits = values_of(of), 2
    else:
        one, other = map(values_of, of.split("/"))
        if len(one) != len(other):
            one, other = [statistics.median(one)], [statistics.median(other)]
        values, digits = [a / b for a, b in zip(one, other)], 3
    return [round(value, digits) for value in (statistics.median(values), min(values), max(values))]


figures, spreads, targets, given = {}, {}, {}, {}
for argument in sys.argv[2:]:
    name, value = argument.split("=", 1)
    target = re.fullmatch(r"([\w./,]+)(\?|[<>]=.+)", value)
    if target:
        figures[name], *spreads[name] = figure(target[1])
        targets[name] = target[2]
    else:
        given[name] = value

timed = [name for name in found if "messages_per_s" in found[name][0]]
more = [key for key in MORE if any(key in found[name][0] for name in timed)]
wide = max([10, *map(len, timed)])
titles = "".join(f"{MORE[key][0]:>14}" for key in more)
print(f"\n{'':{wide}}{'messages/s':>12}{'(lowest':>12}{'highest)':>12}{'CPU us/message':>16}{titles}", file=sys.stderr)
for name in timed:
    rates = [line["messages_per_s"] for line in found[name]]
    row = (
        f"{name:{wide}}{statistics.median(rates):12,.0f}{min(rates):12,.0f}{max(rates):12,.0f}"
        f"{median(name, 'cpu_us_per_message'):16.2f}"
    )
    for key in more:
        _, digits, shown = MORE[key]
        values = known(name, key)
        row += f"{shown(values):14,.{digits}f}" if values else f"{'-':>14}"
    print(row, file=sys.stderr)
print(file=sys.stderr)
for name, value in figures.items():
    spread = "({:g}-{:g})".format(*spreads[name]) if len(set(spreads[name])) > 1 else ""
    target = f"target {targets[name]}" if targets[name] != "?" else ""
    print(f"{name:32}{value:8}  {spread:18}{target}".rstrip(), file=sys.stderr)

environment = {**json.loads(given.pop("environment")), **given}
rates = {f"{name}_messages_per_s": round(median(name, "messages_per_s")) for name in timed}
spread = lambda values: [round(value, 2) for value in (statistics.median(values), min(values), max(values))] if values else None
keys = ["messages", "messages_per_s", "cpu_us_per_message", *more]
all_of = {name: {key: spread(known(name, key)) for key in keys} for name in timed}
print(
    json.dumps(
        {
            **figures,
            "spreads": {name: of for name, of in spreads.items() if of[0] < of[1]},
            **rates,
            **({"all": all_of} if more else {}),
            "environment": environment,
        }
    )
)
