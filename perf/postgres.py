#!/usr/bin/env python3
"""Runs a command that writes rows and ends, and tells what that took Postgres.

postgres.py POSTMASTER COMMAND...   one JSON line; COMMAND's own says how many rows it wrote, and in how many seconds
"""

import json
import os
import subprocess
import sys

from outside import Database, cpu_of_family, microseconds

WAL = "SELECT pg_current_wal_insert_lsn() - '0/0', wal_fpi FROM pg_stat_wal"
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'subscription'"
ROW_BYTES = "SELECT avg(pg_column_size(few)) FROM (SELECT s AS few FROM subscription AS s LIMIT 1000) AS s"


def checkpoints(database):
    [newer] = database.ask("SELECT count(*) FROM pg_class WHERE relname = 'pg_stat_checkpointer'")
    columns = "num_timed + num_requested FROM pg_stat_checkpointer" if newer else "checkpoints_timed + checkpoints_req FROM pg_stat_bgwriter"
    return database.ask(f"SELECT {columns}")[0]


def measure(postmaster, command):
    database = Database(os.environ["MILLPOND_TEST_POSTGRES"])
    look = lambda: [*database.ask(WAL), *database.ask(UPDATES), checkpoints(database), cpu_of_family(postmaster)]
    database.wait_until_alone()
    before = look()
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    database.wait_until_alone()
    wal, images, updates, hot, checkpointed, cpu = (b - a for a, b in zip(before, look()))
    line = json.loads(ran.stdout)
    rows = line["rows"]
    return {
        "rows": rows,
        "seconds": line["seconds"],
        "rows_per_s": rows / line["seconds"],
        "postgres_cpu_us_per_row": microseconds(cpu) / rows,
        "wal_bytes_per_row": wal / rows,
        "page_images_per_row": images / rows,
        "hot_share": hot / max(1, updates),
        "checkpoints": checkpointed,
        "row_bytes": database.ask(ROW_BYTES)[0],
    }


print(json.dumps(measure(int(sys.argv[1]), sys.argv[2:])))
