"""What is seen of consumers and of Postgres from outside, alike for all: processor time and memory from /proc, and one session that asks."""

import bisect
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

SAMPLE_SECONDS = 0.05
END_SECONDS_MAX = 40
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Database:
    """One session for all questions: to connect for each would be seen in the figures."""

    def __init__(self, address):
        self.psql = subprocess.Popen(
            ["psql", "-qAtX", "-F", " ", "-v", "ON_ERROR_STOP=1", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question):
        """The only row of the answer, as numbers."""
        self.psql.stdin.write(f"{question};\n")
        self.psql.stdin.flush()
        answer = self.psql.stdout.readline()
        if not answer:
            sys.exit("Postgres does not answer")
        return [float(value) for value in answer.split()]

    def wait_until_alone(self):
        """Connections tell what they did when they end."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        until = time.monotonic() + END_SECONDS_MAX
        while self.ask(others)[0] > 0:
            if time.monotonic() > until:
                sys.exit("the consumer's connections stay open")
            time.sleep(0.1)


def stat(pid):
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()


def cpu_of(pid):
    fields = stat(pid)
    return int(fields[11]) + int(fields[12])


def cpu_of_family(pid):
    """With its children, those too that have ended and been waited for."""
    fields = stat(pid)
    total = sum(map(int, fields[11:15]))
    for child in open(f"/proc/{pid}/task/{pid}/children").read().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += cpu_of(child)
    return total


def microseconds(ticks):
    return ticks * 1e6 / TICKS_PER_SECOND


class Samples(threading.Thread):
    """Processor time of the consumer's processes and of Postgres, many times a second."""

    def __init__(self, consumers, postmaster):
        super().__init__(daemon=True)
        self.consumers, self.postmaster = consumers, postmaster
        self.at, self.cpu, self.ended = [], [], threading.Event()

    def run(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                now = (sum(map(cpu_of, self.consumers)), cpu_of_family(self.postmaster))
                self.at.append(time.time())
                self.cpu.append(now)

    def end(self):
        self.ended.set()
        self.join()

    def until(self, moment):
        """Microseconds of both up to then, between the two samples beside it."""
        after = min(max(bisect.bisect(self.at, moment), 1), len(self.at) - 1)
        begin, end = self.at[after - 1], self.at[after]
        share = min(max((moment - begin) / (end - begin), 0), 1)
        return [microseconds(one + (other - one) * share) for one, other in zip(self.cpu[after - 1], self.cpu[after])]


def peak_rss_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["postgres-cpu", address, postmaster]:
            Database(address).wait_until_alone()
            print(round(microseconds(cpu_of_family(postmaster))))
        case _:
            sys.exit("usage: outside.py postgres-cpu ADDRESS PID")
