#!/usr/bin/env python3
"""What perf/latency asks of a consumer, and draws.

latency.py curves ADDRESS SECONDS           its distributions, once it has no lag; fails if that takes longer
latency.py say LINES                        the last line in words
latency.py report LINES OUT LIMIT GIVEN     the table, two pictures, and the JSON line
"""

import json
import math
import statistics
import sys
import time
import urllib.request

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 420, 70, 50, 30, 130
COLORS = ["#1b6ac9", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0e7490", "#a16207", "#475569"]
QUANTILES = ("p50", "p90", "p99", "p999")


def ask(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return answer.read().decode()


def curves(at, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(2)
        status = json.loads(ask(at, "/api/status"))
        if sum(shard["lag"] for shard in status["shards"]) == 0:
            latency = status["latency"]
            return json.dumps({name: latency[f"{name}_run"]["us"] for name in ("apply", "end_to_end")})
    sys.exit(f"there is lag after {seconds} s")


def read(lines):
    """By rate: the lines of all rounds."""
    found = {}
    for line in map(json.loads, open(lines)):
        found.setdefault(line["line"]["rate"], []).append(line["line"])
    return found


def ms(us):
    return us / 1000


def say(lines):
    line = json.loads(open(lines).read().splitlines()[-1])["line"]
    run = line["run"]
    words = [f"{name} p50 {ms(run[key]['p50']):.1f} p99 {ms(run[key]['p99']):.1f} p99.9 {ms(run[key]['p999']):.1f} ms"
             for name, key in (("dispatched to applied", "apply_us"), ("produced to applied", "end_to_end_us"))]
    return f"{line['load']['messages_per_s']:,.0f} messages/s: {', '.join(words)}, {run['cpu_us_per_message']:.1f} us CPU a message"


def frame(title, x_title, marks_x, marks_y):
    """The axes; marks are (position from 0 to 1, text)."""
    x = lambda share: LEFT + share * (WIDTH - LEFT - RIGHT)
    y = lambda share: HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="18" font-size="14">{title}</text>',
             f'<text x="{x(0.5)}" y="{HEIGHT - 10}" text-anchor="middle">{x_title}</text>']
    for at, text in marks_x:
        parts.append(f'<path d="M{x(at):.1f} {y(0):.1f}V{y(1):.1f}" stroke="#e2e8f0"/>'
                     f'<text x="{x(at):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{text}</text>')
    for at, text in marks_y:
        parts.append(f'<path d="M{x(0):.1f} {y(at):.1f}H{x(1):.1f}" stroke="#e2e8f0"/>'
                     f'<text x="{LEFT - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{text}</text>')
    return parts, x, y


def curve(parts, x, y, points, number, name):
    """A line of (x, y) from 0 to 1, with its name at its end."""
    color = COLORS[number % len(COLORS)]
    path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
    end_x, end_y = points[-1]
    parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>'
                 f'<text x="{x(end_x) + 6:.1f}" y="{y(end_y) + 4:.1f}" fill="{color}">{name}</text>')


def scale_of(values):
    """A logarithmic axis of milliseconds: what places a value on it, and its marks."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    place = lambda value: (math.log10(value) - low) / (high - low)
    return place, [(place(10.0**at), f"{10.0**at:g} ms") for at in range(low, high + 1)]


def sweep(table, out):
    rates = sorted(table)
    place, marks = scale_of([max(0.001, table[rate][q]) for rate in rates for q in QUANTILES])
    low, high = math.log10(rates[0]), math.log10(rates[-1])
    across = lambda rate: (math.log10(rate) - low) / max(0.001, high - low)
    parts, x, y = frame("Produced to applied, by rate", "messages/s", [(across(rate), f"{rate:,}") for rate in rates], marks)
    for number, quantile in enumerate(QUANTILES):
        name = {"p999": "p99.9"}.get(quantile, quantile)
        curve(parts, x, y, [(across(rate), place(max(0.001, table[rate][quantile]))) for rate in rates], number, name)
    open(f"{out}/sweep.svg", "w").write("\n".join([*parts, "</svg>\n"]))


def hdr(found, out):
    """Percentiles of the last round on an axis of 1/(1-p), five points a decade as the status page has them."""
    of = {rate: [max(1, us) / 1000 for us in lines[-1]["curves"]["end_to_end"]] for rate, lines in sorted(found.items())}
    of = {rate: values for rate, values in of.items() if len(values) > 1}
    place, marks = scale_of([value for values in of.values() for value in values])
    longest = max(map(len, of.values())) - 1
    names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]
    parts, x, y = frame("Produced to applied, by percentile", "percentile",
                        [(at * 5 / longest, name) for at, name in enumerate(names) if at * 5 <= longest], marks)
    for number, (rate, values) in enumerate(of.items()):
        curve(parts, x, y, [(at / longest, place(value)) for at, value in enumerate(values)], number, f"{rate:,}/s")
    open(f"{out}/hdr.svg", "w").write("\n".join([*parts, "</svg>\n"]))


def report(lines, out, limit, given):
    found = read(lines)
    table = {}
    print(f"\n{'messages/s':>12}{'reached':>10}{'p50':>9}{'p90':>9}{'p99':>9}{'(lowest':>10}{'highest)':>10}{'p99.9':>9}"
          f"{'apply p99':>11}{'CPU us':>8}", file=sys.stderr)
    for rate, rounds in sorted(found.items()):
        middle = lambda key, q: statistics.median(ms(line["run"][key][q]) for line in rounds)
        p99s = [ms(line["run"]["end_to_end_us"]["p99"]) for line in rounds]
        row = {q: middle("end_to_end_us", q) for q in QUANTILES}
        row |= {"p99_lowest": min(p99s), "p99_highest": max(p99s), "apply_p99": middle("apply_us", "p99"),
                "reached": statistics.median(line["load"]["messages_per_s"] for line in rounds),
                "cpu_us": statistics.median(line["run"]["cpu_us_per_message"] for line in rounds)}
        table[rate] = {name: round(value, 3) for name, value in row.items()}
        print(f"{rate:12,}{row['reached']:10,.0f}{row['p50']:9.1f}{row['p90']:9.1f}{row['p99']:9.1f}{row['p99_lowest']:10.1f}"
              f"{row['p99_highest']:10.1f}{row['p999']:9.1f}{row['apply_p99']:11.1f}{row['cpu_us']:8.1f}", file=sys.stderr)
    borne = [rate for rate, row in table.items() if row["p99"] <= float(limit) and row["reached"] >= 0.98 * rate]
    given = json.loads(given)
    environment = {**given.pop("of"), **given}
    print(json.dumps({"knee_messages_per_s": max(borne, default=0), "limit_ms": float(limit), "rates": table, "environment": environment}))
    print(f"\nborne with p99 at most {limit} ms: {max(borne, default=0):,} messages/s", file=sys.stderr)
    sweep(table, out)
    hdr(found, out)


command, *arguments = sys.argv[1:]
if command == "curves":
    print(curves(arguments[0], float(arguments[1])))
elif command == "say":
    print(say(*arguments))
else:
    report(*arguments)
