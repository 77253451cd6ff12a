#!/usr/bin/env python3
"""Waits until a server is ready, and prints where it listens, by its log; or until a consumer has applied what it was sent.

ready.py edge|go|run LOG            the address for requests of the edge and of the Go server beside it; of `run`, that of its administration
ready.py applied ADDRESS MESSAGES   since the consumer with that administration began
"""

import json
import sys
import time
import urllib.request

READY_SECONDS_MAX = 30
# Without any progress.
APPLY_SECONDS_MAX = 60


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


def metric(admin, name):
    """All values of that name together."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def wait_applied(admins, messages, seconds_between=0.1):
    """By all of them together. Looks seldom, since answering is the consumers' work too."""
    best, until = -1, 0
    while best < messages:
        applied = sum(metric(admin, "millpond_messages_total") for admin in admins)
        if applied > best:
            best, until = applied, time.monotonic() + APPLY_SECONDS_MAX
        if time.monotonic() > until:
            sys.exit(f"{best:.0f} of {messages} messages are applied, and no more for {APPLY_SECONDS_MAX} s")
        time.sleep(seconds_between)


if __name__ == "__main__":
    if sys.argv[1] == "applied":
        wait_applied([sys.argv[2]], int(sys.argv[3]))
    else:
        print(address(*sys.argv[1:]))
