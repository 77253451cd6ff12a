#!/usr/bin/env python3
"""The tables and the JSON line of scripts that vary one thing at a time.

points.py say LINE
points.py report LINES KEY=VALUE...

LINES has one JSON object a line: name is DIMENSION/POINT, and line what was measured there, with `base` where the point is what all
others of its dimension are compared with. A ratio is the median of those of each round. KEY=VALUE goes to the environment, which
begins with what perf/environment found.
"""

import json
import re
import statistics
import sys

# Title, digits and factor. A table has those columns that its lines have, and that of all processes where there are several.
COLUMNS = {
    "rows_per_s": ("rows/s", 0, 1),
    "messages_per_s": ("messages/s", 0, 1),
    "cpu_us_per_message": ("CPU, µs a message", 2, 1),
    "postgres_cpu_us_per_row": ("Postgres' CPU, µs a row", 1, 1),
    "peak_rss_mib": ("peak, MiB", 0, 1),
    "peak_rss_mib_sum": ("all processes, MiB", 0, 1),
    "wal_bytes_per_row": ("WAL, bytes a row", 0, 1),
    "page_images_per_row": ("whole pages a row", 3, 1),
    "hot_share": ("HOT, %", 1, 100),
    "checkpoints": ("checkpoints", 0, 1),
    "row_bytes": ("row, bytes", 0, 1),
}
RATES = ("rows_per_s", "messages_per_s")


def number(value, digits):
    return f"{value:,.{digits}f}"


def say(line):
    return ", ".join(f"{title} {number(line[key] * factor, digits)}" for key, (title, digits, factor) in COLUMNS.items() if key in line)


def read(lines):
    """By dimension and point: the lines of all rounds."""
    found = {}
    for entry in map(json.loads, open(lines)):
        dimension, _, point = entry["name"].partition("/")
        found.setdefault(dimension, {}).setdefault(point, []).append(entry["line"])
    # By the numbers that they begin with; those in words first.
    by_size = lambda point: int(re.match(r"\d*", point)[0] or 0)
    return {dimension: {point: points[point] for point in sorted(points, key=by_size)} for dimension, points in found.items()}


def spread(values):
    return [statistics.median(values), min(values), max(values)]


def of_base(lines, base):
    rate = next(key for key in RATES if key in base[0])
    return spread([line[rate] / other[rate] for line, other in zip(lines, base)])


def cell(lines, key):
    _, digits, factor = COLUMNS[key]
    middle, low, high = (number(value * factor, digits) for value in spread([line[key] for line in lines]))
    return f"{middle} ({low}–{high})" if key in RATES and low != high else middle


def table(dimension, points, base):
    keys = [key for key in COLUMNS if any(key in lines[0] for lines in points.values())]
    if all(line.get("peak_rss_mib_sum") == line.get("peak_rss_mib") for lines in points.values() for line in lines):
        keys = [key for key in keys if key != "peak_rss_mib_sum"]
    titles = [COLUMNS[key][0] for key in keys]
    titles.insert(1, "of base")
    rows = [[dimension, *titles], ["---"] * (len(titles) + 1)]
    for point, lines in points.items():
        cells = [cell(lines, key) for key in keys]
        cells.insert(1, number(of_base(lines, base)[0], 2))
        rows.append([point, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def report(lines, given):
    environment = json.loads(given.pop("environment")) | given
    out = {}
    for dimension, points in read(lines).items():
        base = next(lines for lines in points.values() if lines[0].get("base"))
        print(f"\n{table(dimension, points, base)}", file=sys.stderr)
        out[dimension] = {
            point: {key: [round(value, 4) for value in spread([line[key] for line in lines])] for key in COLUMNS if key in lines[0]}
            | {"of_base": [round(value, 3) for value in of_base(lines, base)]}
            for point, lines in points.items()
        }
    print(json.dumps(out | {"environment": environment}))


match sys.argv[1:]:
    case ["say", line]:
        print(say(json.loads(line)))
    case ["report", lines, *given]:
        report(lines, dict(one.split("=", 1) for one in given))
    case _:
        sys.exit(__doc__)
