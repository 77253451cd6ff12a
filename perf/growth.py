#!/usr/bin/env python3
"""Measures consumers of one group from when they may begin until all is applied.

growth.py PROCESSES PARTITIONS MESSAGES INCARNATION POSTMASTER DIRECTORY RUN... -- LOAD...

So many processes of RUN, all members of one group, wait until each has its part of the partitions, and stand still (SIGSTOP) while
LOAD sends that many messages: what is measured has no start, no rebalance and no producer in it. Then they go on. Prints one JSON line.
Logs go to DIRECTORY.
"""

import json
import os
import signal
import subprocess
import sys
import time

from outside import Database, Samples, end, peak_rss_mib
from ready import address, metric, wait_applied

SHARED_SECONDS_MAX = 60
LOOK_SECONDS = 0.5


def wait_until_shared(admins, partitions):
    until = time.monotonic() + SHARED_SECONDS_MAX
    while True:
        parts = [metric(admin, "millpond_assigned_partitions") for admin in admins]
        if sum(parts) == partitions and max(parts) - min(parts) <= 1:
            return
        if time.monotonic() > until:
            sys.exit(f"after {SHARED_SECONDS_MAX} s the processes have {parts} of {partitions} partitions")
        time.sleep(0.2)


def signal_all(consumers, number):
    for consumer in consumers:
        consumer.send_signal(number)


def watched(consumers, logs, partitions, messages, postmaster, load):
    """When they went on, the samples, and the most memory of each."""
    admins = [address("run", log) for log in logs]
    wait_until_shared(admins, partitions)
    signal_all(consumers, signal.SIGSTOP)
    try:
        subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
        samples = Samples([consumer.pid for consumer in consumers], postmaster)
        samples.start()
        began = time.time()
    finally:
        signal_all(consumers, signal.SIGCONT)
    wait_applied(admins, messages, LOOK_SECONDS)
    peaks = [peak_rss_mib(consumer.pid) for consumer in consumers]
    samples.end()
    return began, samples, peaks


def measure(processes, partitions, messages, incarnation, postmaster, directory, run, load):
    # Whoever ends this ends the consumers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    database = Database(os.environ["MILLPOND_TEST_POSTGRES"])
    outs, logs = ([f"{directory}/run-{number}.{kind}" for number in range(processes)] for kind in ("out", "log"))
    consumers = []
    try:
        for out, log in zip(outs, logs):
            with open(out, "w") as summary, open(log, "w") as said:
                consumers.append(subprocess.Popen(run, stdout=summary, stderr=said))
        began, samples, peaks = watched(consumers, logs, partitions, messages, postmaster, load)
    finally:
        for consumer in consumers:
            end(consumer)
    summaries = [json.loads(open(out).read().splitlines()[-1]) for out in outs]
    rows, done = (sum(summary[key] for summary in summaries) for key in ("rows_written", "messages"))
    if done != messages:
        sys.exit(f"{done} messages were finished, and {messages} sent")
    # Of a row that came again, the last write.
    [last] = database.ask(
        f"""SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) FROM subscription
        WHERE source_incarnation = {incarnation}"""
    )
    own, postgres = (after - before for before, after in zip(samples.until(began), samples.until(last)))
    [row_bytes] = database.ask("SELECT avg(pg_column_size(few)) FROM (SELECT s AS few FROM subscription AS s LIMIT 1000) AS s")
    return {
        "messages": messages,
        "seconds": round(last - began, 3),
        "messages_per_s": messages / (last - began),
        "cpu_us_per_message": own / messages,
        "postgres_cpu_us_per_row": postgres / rows,
        "peak_rss_mib": max(peaks),
        "peak_rss_mib_sum": sum(peaks),
        "rows_written": rows,
        "row_bytes": row_bytes,
    }


split = sys.argv.index("--")
numbers, (directory, *run) = map(int, sys.argv[1:6]), sys.argv[6:split]
print(json.dumps(measure(*numbers, directory, run, sys.argv[split + 1 :])))
