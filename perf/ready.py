#!/usr/bin/env python3
"""Waits until a server is ready, and prints where it listens, by its log.

ready.py edge|go|run LOG    the address for requests of the edge and of the Go server beside it; of `run`, that of its administration
"""

import json
import sys
import time
import urllib.request

READY_SECONDS_MAX = 30


def said(log, what, **fields):
    """The address in the line of that message, once the log has it."""
    for line in open(log):
        if f'"{what}"' in line and (line := json.loads(line)).items() >= fields.items():
            return line["address"]
    return None


def is_ready(admin):
    try:
        with urllib.request.urlopen(f"http://{admin}/readyz", timeout=5):
            return True
    except OSError:
        return False


def address(server, log):
    until = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < until:
        if server == "run":
            found = admin = said(log, "admin address")
        else:
            found, admin = (said(log, "listening", listens=what) for what in ("ingest", "admin"))
        # The edge refuses everything until it has found Kafka, and the consumer reads nothing. Go's is ready when it listens.
        if found and (server == "go" or admin and is_ready(admin)):
            return found
        time.sleep(0.05)
    sys.exit(f"not ready within {READY_SECONDS_MAX} s")


_, server, log = sys.argv
print(address(server, log))
