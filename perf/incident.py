#!/usr/bin/env python3
"""What perf/incident sees of a consumer, and what it makes of that.

incident.py watch OUT SECONDS COMMAND...   runs a consumer for so long and samples it each second; touches OUT.ready once the
                                           consumer is ready, and OUT.seconds counts from there
incident.py signature OUT CHANGE PARTITIONS APP
                                           before and after second CHANGE, and a picture; JSON on stdout
incident.py delays PARTITIONS APP FROM TO <ROWS
                                           delays of rows on other partitions than APP's; ROWS has one row a line: app_id, seconds
                                           since 1970 at which it was sent and at which it was committed; JSON on stdout

All partitions are those of one shard.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

SAMPLES_PER_SECOND = 10
BARS = "▁▂▃▄▅▆▇█"

# The words of XXH3's secret that 16 bytes of input meet.
SECRET = [0xC73AB174C5ECD5A2, 0xB8F2C24DB6ED4EBD]
MASK = (1 << 64) - 1


def partition_of(app, partitions):
    """xxh3_64 of an app's 16 bytes, modulo the partitions."""
    data = bytes.fromhex(app.replace("-", ""))
    low = int.from_bytes(data[:8], "little") ^ flip(24, 32)
    high = int.from_bytes(data[8:], "little") ^ flip(40, 48)
    product = low * high
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    hashed = (16 + swapped + high + ((product & MASK) ^ (product >> 64))) & MASK
    hashed ^= hashed >> 37
    hashed = (hashed * 0x165667919E3779F9) & MASK
    return (hashed ^ (hashed >> 32)) % partitions


SECRET_BYTES = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
)


def flip(one, other):
    word = lambda at: int.from_bytes(SECRET_BYTES[at : at + 8], "little")
    return word(one) ^ word(other)
