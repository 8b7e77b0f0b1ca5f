"""Where the runs of a suite take place: here, one or several at a time; on Ray; as arrays of SLURM jobs. Each run is a
separate process that resumes where an earlier one was stopped."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from datamodules import UserError

from ..config.command import format_duration
from ..config.package import CONFIGS, NAME
from ..runs.folder import Run
from .warm import run_warm

SBATCH = CONFIGS / "slurm" / "run.sbatch"


@dataclass(frozen=True)
class Work:
    """One run: its number in the suite, its name, the arguments of src.fit, and the log that gets its output when several
    run at a time; or the evaluation of one."""

    number: int
    name: str
    options: list[str]
    log: Path
    by: str = "fit"

    @property
    def run(self) -> Run:
        return Run(self.log.with_suffix(""))

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", f"{NAME}.{self.by}", *self.options]


def run_here(works: list[Work], jobs: int) -> Iterator[tuple[Work, int]]:
    """Yield every run with its exit status as it finishes. A single run at a time writes to the terminal; several share
    the cores and write to their logs."""
    if jobs == 1:
        for work in works:
            print(work.name, flush=True)
            yield work, run_warm(work.options, None, work.by)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_warm, work.options, work.log, work.by): work for work in works}
        yield from report(((running[done], done.result()) for done in as_completed(running)), len(works))


def run_on_ray(works: list[Work], cpus: float, gpus: float) -> Iterator[tuple[Work, int]]:
    """The same on the Ray cluster of RAY_ADDRESS, or on one started here. All its machines must see this folder."""
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is not installed: `pip install .[ray]`, or leave --on ray out") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    folder = os.getcwd()

    def run(command: list[str], log_file: str) -> int:
        import subprocess
        from pathlib import Path

        log_path = Path(folder, log_file)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("w") as log:
            return subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False).returncode

    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(run)
    running = {remote.remote(work.command, str(work.log)): work for work in works}

    def finished() -> Iterator[tuple[Work, int]]:
        while running:
            [done], _ = ray.wait(list(running), num_returns=1)
            work = running.pop(done)
            try:
                yield work, ray.get(done)
            except ray.exceptions.RayError as error:  # its machine was lost three times
                print(f"{work.name}: {error}", file=sys.stderr)
                yield work, 1

    yield from report(finished(), len(works))


def submit_to_slurm(waves: list[list[Work]], suite_options: list[str], sbatch_options: str) -> list[str]:
    """Submit one array of jobs for each wave, which waits for the wave before it; returns the job ids."""
    jobs: list[str] = []
    for works in waves:
        numbers = ",".join(str(work.number) for work in works)
        after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
        command = ["sbatch", "--parsable", f"--array={numbers}", *after, *shlex.split(sbatch_options)]
        command += [str(SBATCH), f"{NAME}.suite", *suite_options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise UserError("sbatch is not installed here: submit from a machine of the cluster") from error
        if done.returncode:
            raise UserError(f"sbatch refused the jobs ({done.stderr.strip()}): change --sbatch")
        jobs.append(done.stdout.strip().partition(";")[0])
        print(f"job {jobs[-1]}: {len(works)} runs")
    return jobs


def report(finished: Iterable[tuple[Work, int]], total: int) -> Iterator[tuple[Work, int]]:
    """Print a line for each run that finishes, with the estimated time left."""
    began = monotonic()
    for number, (work, status) in enumerate(finished, start=1):
        left = format_duration((monotonic() - began) / number * (total - number))
        state = "done" if status == 0 else f"failed, see {work.log}"
        print(f"{number}/{total}  {work.name}: {state}, {left} left", flush=True)
        yield work, status
