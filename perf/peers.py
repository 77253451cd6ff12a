#!/usr/bin/env python3
"""Runs a consumer until the table is what the topic says, and ends it.

peers.py measure TOPIC MESSAGES KIND POSTMASTER SECONDS LOG COMMAND...
                 one JSON line about COMMAND, which must go on until it is ended; fails after so many SECONDS
peers.py say LINE

The table expected_TOPIC has every row that the topic has updates for, as it has to be after the last one, and end_TOPIC the last row
of each partition. KIND is `each` where one message is one write, `folds` where several may be, and `overwrites` or
`overwrites_folding` where only a row's last message stays.
"""

import json
import os
import signal
import subprocess
import sys
import time

from outside import Database, Samples, end, peak_rss_mib

LOOK_SECONDS = 0.5
# Without a write for so long, the rest is not coming. A JVM has started by then.
STALLED_SECONDS = 45


def count(database, topic, differ):
    """Rows of which that is true; e is what the topic says, t what the table has."""
    question = f"""SELECT count(*) FROM expected_{topic} AS e FULL JOIN subscription AS t USING (app_id, subscription_id)
        WHERE {differ}"""
    return int(database.ask(question)[0])


def lost(database, topic):
    """Rows that are not at their last update."""
    return count(database, topic, "e.source_offset IS NOT NULL AND t.source_offset IS DISTINCT FROM e.source_offset")


def wrong(database, topic, kind):
    """Rows that are not what all of their updates make, one after the other; None where that is not what the consumer does."""
    if count(database, topic, "e.source_offset IS NULL AND t.source_offset >= 0"):
        sys.exit("rows were written that the topic has no updates for")
    row = "(t.tags, t.counts, t.device_type, t.identifier)"
    if kind.startswith("overwrites"):
        last = "(last -> 'tags', COALESCE(last -> 'counts', '{}'), last ->> 'device_type', last ->> 'identifier')"
        if count(database, topic, f"e.source_offset = t.source_offset AND {last} IS DISTINCT FROM {row}"):
            sys.exit("rows are not what their last message says")
        return None
    made = "(e.tags, e.counts, e.device_type, e.identifier)"
    return count(database, topic, f"e.source_offset IS NOT NULL AND {made} IS DISTINCT FROM {row}")


def wait_until_applied(database, topic, process, log, seconds):
    """How many rows are lost at the end."""
    behind = f"""SELECT count(*), pg_current_wal_insert_lsn() - '0/0' FROM end_{topic} AS e
        JOIN subscription AS t USING (app_id, subscription_id) WHERE t.source_offset < e.source_offset"""
    began = moved = time.monotonic()
    before = None
    while True:
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        if process.poll() is not None:
            sys.exit(f"the consumer has ended by itself:\n{open(log, errors='replace').read()[-4000:]}")
        partitions, written = database.ask(behind)
        if written != before:
            before, moved = written, now
        stalled = now - moved > STALLED_SECONDS
        # The full look is dear, so only where the last rows are there.
        if partitions == 0 or stalled:
            missing = lost(database, topic)
            if missing == 0 or stalled:
                return missing
        if now - began > seconds:
            sys.exit(f"not finished in {seconds} s")


def rows_written(database):
    return int(database.ask("SELECT n_tup_upd + n_tup_ins FROM pg_stat_user_tables WHERE relname = 'subscription'")[0])


def measure(topic, messages, kind, postmaster, seconds, log, command):
    # Whoever ends this ends the consumer too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    database = Database(os.environ["MILLPOND_TEST_POSTGRES"])
    writes = rows_written(database)
    with open(log, "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        samples = Samples([process.pid], postmaster)
        samples.start()
        missing = wait_until_applied(database, topic, process, log, seconds)
        peak = peak_rss_mib(process.pid)
        samples.end()
    finally:
        end(process)
    database.wait_until_alone()
    writes = rows_written(database) - writes
    moments = database.ask(
        """SELECT extract(epoch FROM min(at)), extract(epoch FROM max(at))
        FROM (SELECT pg_xact_commit_timestamp(xmin) AS at FROM subscription WHERE source_offset >= 0) AS written"""
    )
    if not moments:
        sys.exit(f"the consumer has written nothing:\n{open(log, errors='replace').read()[-4000:]}")
    first, last = moments
    took = max(last - first, 1e-3)
    own, postgres = [(b - a) / messages for a, b in zip(samples.until(first), samples.until(last))]
    return {
        "messages": messages,
        "seconds": round(took, 3),
        "messages_per_s": messages / took,
        "cpu_us_per_message": own,
        "postgres_cpu_us_per_message": postgres,
        "peak_rss_mib": round(peak),
        "rows_written": writes,
        "lost": missing,
        "wrong": wrong(database, topic, kind),
        "twice": max(0, writes - messages) if kind in ("each", "overwrites") else None,
    }


def main(arguments):
    match arguments:
        case ["measure", topic, messages, kind, postmaster, seconds, log, *command]:
            print(json.dumps(measure(topic, int(messages), kind, int(postmaster), int(seconds), log, command)))
        case ["say", line]:
            line = json.loads(line)
            print(
                f"{line['messages_per_s']:,.0f} messages/s, CPU {line['cpu_us_per_message']:.1f} us a message and"
                f" {line['postgres_cpu_us_per_message']:.1f} in Postgres, {line['peak_rss_mib']} MiB,"
                f" {line['lost']} rows lost, {line['wrong']} wrong, {line['twice']} written twice"
            )
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
