#!/usr/bin/env python3
"""Reads what perf/offcpu recorded (perf script's text) on stdin, and prints folded stacks with the microseconds that each was off
the CPU: `thread;kind;outermost;...;innermost us`. The table on stderr has the time of each role's threads, and what share of it
they ran or waited, by kind.

A wait counts from when the thread left its core to when it had one again, so it has the time in which it was woken already and
waited for a core. One that has not ended counts to the end of the recording.
"""

import collections
import re
import sys

from roles import ROLES, role_of

# What a thread waits for, by the functions of its stack; the first that fits.
KINDS = (
    ("memory", r"exc_page_fault|rwsem_down_|__x64_sys_(madvise|munmap|mmap)"),
    ("lock", r"lll_lock_wait|pthread_mutex_(cond_)?lock|mtx_lock|lock_slow|lock_contended"),
    ("Postgres", r"tokio_postgres|\bpostgres::|ShardConnection"),
    ("Kafka", r"rd_kafka_transport_|rd_kafka_op_req"),
    ("work", r"\brecv\b|park_timeout|thread::park\b|cnd_timedwait|cnd_wait|[cC]ond(var|_timedwait|_wait)|epoll_wait|accept|__libc_recv|nanosleep|__poll"),
)
# It could have run on, but another had the core. Who yields while it looks for work is not one of these.
NO_CORE = "core"
COLUMNS = ("running", *(name for name, _ in KINDS), NO_CORE, "other")

LINE = re.compile(r"^\s*(.+?)\s+(\d+)\s+(\d+\.\d+):\s+(.*?)\s*$")
# Above this are only the frames with which every thread begins.
THREAD_BEGINS = re.compile(r"__rust_begin_short_backtrace|^start_thread$")


def kind_of(stack, preempted):
    text = "\n".join(stack)
    if preempted and "sched_yield" not in text:
        return NO_CORE
    return next((name for name, pattern in KINDS if re.search(pattern, text)), "other")


def events(lines):
    """(thread, number, second, what, stack), the stack from the innermost; what is `sample`, `in`, `out` or `preempted`."""
    pending = None
    for line in lines:
        if line.startswith("\t") and pending:
            pending[4].append(line.split(None, 1)[1].strip())
            continue
        if pending and pending[4]:
            yield pending
            pending = None
        found = LINE.match(line)
        if not found:
            continue
        name, number, second, what = found.groups()
        if "PERF_RECORD_LOST" in what:
            sys.exit("perf/offcpu: perf lost records; try again with fewer messages, or a lower rate")
        switch = re.match(r"PERF_RECORD_SWITCH\S*\s+(IN|OUT)\s*(preempt)?", what)
        event = (name, int(number), float(second))
        if switch:
            yield *event, "in" if switch[1] == "IN" else "preempted" if switch[2] else "out", []
        else:
            pending = (*event, "sample", [])
    if pending:
        yield pending


def frames(stack):
    """From the outermost, without those that all threads begin with."""
    begins = next((at for at, frame in enumerate(stack) if THREAD_BEGINS.search(frame)), len(stack))
    kept = [frame.replace(";", ":") for frame in stack[:begins] if frame != "schedule"]
    return kept[::-1]


def waits(found):
    """Each wait's thread, kind, stack and seconds; and of each thread by number its name, the first and the last second."""
    stacks, since, seen, total, second = {}, {}, {}, [], 0.0
    for name, number, second, what, stack in found:
        seen[number] = (name, seen.get(number, (name, second))[1], second)
        if what == "sample":
            stacks[number] = stack
        elif what == "in":
            if number in since:
                began, kind, of = since.pop(number)
                total.append((name, kind, of, second - began))
        else:
            of = stacks.pop(number, [])
            since[number] = (second, kind_of(of, what == "preempted"), of)
    for number, (began, kind, of) in since.items():
        name, first, _ = seen[number]
        seen[number] = (name, first, second)
        total.append((name, kind, of, second - began))
    return total, seen


def main():
    total, seen = waits(events(sys.stdin))
    if not total:
        sys.exit("perf/offcpu: nothing was recorded")
    folded, spent, lived, threads = (collections.Counter() for _ in range(4))
    for name, kind, stack, seconds in total:
        folded[";".join([name, kind, *frames(stack)])] += seconds * 1e6
        spent[role_of(name), kind] += seconds
    for stack, us in sorted(folded.items()):
        if round(us):
            print(stack, round(us))
    for name, first, last in seen.values():
        lived[role_of(name)] += last - first
        threads[role_of(name)] += 1

    print(f"\n{'':12}{'threads':>8}{'seconds':>10}" + "".join(f"{column:>10}" for column in COLUMNS), file=sys.stderr)
    for role, _ in ROLES:
        waited = [spent[role, column] for column in COLUMNS[1:]]
        shares = [of / (lived[role] or 1) for of in (lived[role] - sum(waited), *waited)]
        print(f"{role:12}{threads[role]:8}{lived[role]:10.2f}" + "".join(f"{share:10.1%}" for share in shares), file=sys.stderr)


main()
