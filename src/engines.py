"""Where the runs of a suite take place: here, one or several at a time. Each is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from src.callbacks import clock


@dataclass(frozen=True)
class Work:
    """One run to make: its name, what src.fit is told, and where its output is kept when others write at the same time."""

    name: str
    options: list[str]
    log: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "src.fit", *self.options]


def run_here(works: list[Work], jobs: int) -> Iterator[tuple[Work, int]]:
    """Every piece of work with its exit status, as they finish. One at a time writes to the terminal; several at a time
    share the cores and write to their logs."""
    if jobs == 1:
        for work in works:
            print(work.name, flush=True)
            yield work, subprocess.run(work.command, check=False).returncode
        return
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs)), **os.environ}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_with_log, work, environment): work for work in works}
        yield from report(((running[done], done.result()) for done in as_completed(running)), len(works))


def run_with_log(work: Work, environment: dict[str, str] | None = None) -> int:
    """Run it with its output in its log; returns the exit status."""
    work.log.parent.mkdir(parents=True, exist_ok=True)
    with open(work.log, "w") as log:
        return subprocess.run(work.command, stdout=log, stderr=log, env=environment, check=False).returncode


def report(finished: Iterator[tuple[Work, int]], total: int) -> Iterator[tuple[Work, int]]:
    """A line for each that finishes, with the time left."""
    began = monotonic()
    for number, (work, status) in enumerate(finished, start=1):
        left = clock((monotonic() - began) / number * (total - number))
        state = "done" if status == 0 else f"broke, see {work.log}"
        print(f"{number}/{total}  {work.name}: {state}, {left} left", flush=True)
        yield work, status
