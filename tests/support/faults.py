"""Small runs in processes of their own, to be killed, stopped and compared to the bit: tests/src/training/test_resume.py.

boundaries.py strikes at every system call that changes a file: `make faults`.
"""

from __future__ import annotations

import io
import json
import multiprocessing as mp
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import torch
import yaml

import src.fit
from src.config.command import run_command
from tests.support import ROOT

CELL = ["--config", "configs/digits_perceiver.yaml", "--trainer.max_epochs", "3", "--model.dropout", "0.1"]
# averages of the weights, and every kind of randomness, must survive too
EMA = {"trainer": {"callbacks": [{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging"}]}}
RANKS = ("--trainer.accelerator", "cpu", "--trainer.devices", "2")
LONGEST = 600.0  # seconds that any process here may take


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}


@cache
def warm_up() -> None:
    """Imports all that a run imports while it runs, nine seconds of work: forked processes then find it done."""
    variables = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        os.environ["WANDB_MODE"] = "disabled"
        src.fit.main([*options_of(Path(folder), ()), "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"])
    os.environ.clear()
    os.environ.update(variables)


class Forked:
    """A command in a process of its own that, forked, need not import everything anew; used as subprocess.Popen is.

    The process that forks computes on one thread: torch's others do not survive it.
    """

    def __init__(self, main: Callable[[list[str]], object], arguments: list[str], **variables: str) -> None:
        self.log, name = tempfile.mkstemp()
        os.unlink(name)  # read through its descriptor alone
        self.process = mp.get_context("fork").Process(target=self.run, args=(main, arguments, variables))
        self.process.start()
        self.pid, self.poll = self.process.pid, lambda: self.process.exitcode
        self.kill, self.terminate = self.process.kill, self.process.terminate

    def run(self, main: Callable[[list[str]], object], arguments: list[str], variables: dict[str, str]) -> None:
        os.chdir(ROOT)
        os.setpgrp()  # a terminal's signals go to the process with its workers
        os.environ |= environment() | variables
        os.dup2(self.log, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr, sys.stdout = os.fdopen(2, "w", buffering=1), os.fdopen(1, "w")
        sys.argv = ["src/fit.py", *arguments]
        run_command(main)

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self, seconds: float) -> None:
        self.process.join(seconds)
        if self.process.is_alive():
            raise subprocess.TimeoutExpired(self.process.name, seconds)

    def communicate(self, timeout: float = LONGEST) -> tuple[None, str]:
        self.wait(timeout)
        return None, os.pread(self.log, os.fstat(self.log).st_size, 0).decode()


Process = subprocess.Popen | Forked


def options_of(folder: Path, options: tuple[str, ...]) -> list[str]:
    """What starts src.fit on a small cell with everything that keeps state, its runs in `folder`."""
    averaged = folder / "ema.yaml"
    if not averaged.exists():
        folder.mkdir(parents=True, exist_ok=True)
        averaged.write_text(yaml.safe_dump(EMA))
    return [*CELL, "--config", str(averaged), "--runs_dir", str(folder), *options]


def fit(folder: Path, *options: str) -> Forked:
    return Forked(src.fit.main, options_of(folder, options))


def fit_ranks(folder: Path, *options: str) -> list[Forked]:
    return ranks(options_of(folder, (*RANKS, *options)))


def ranks(command: list[str], main: Callable = src.fit.main, **variables: str) -> list[Forked]:
    """src.fit on two ranks that begin at once: as a command, the second would import everything while the first waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    variables |= {"NODE_RANK": "0", "MASTER_PORT": port}
    return [Forked(main, command, LOCAL_RANK=rank, **variables) for rank in "01"]


def fit_command(folder: Path, *options: str) -> subprocess.Popen:
    """The same as a command, which Lightning repeats for the other ranks."""
    command = [sys.executable, "-m", "src.fit", *options_of(folder, (*RANKS, *options))]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def run_folder(folder: Path) -> Path:
    return folder / "digits" / "perceiver" / "seed0"


def finish(process: Process) -> tuple[int, str]:
    """Exit status and standard error."""
    said = process.communicate(timeout=LONGEST)[1]
    return process.returncode, said


def wait_until(condition: Callable[[], bool], process: Process) -> bool:
    """Whether the condition came true before the process ended."""
    limit = time.monotonic() + LONGEST
    while time.monotonic() < limit:
        if condition():
            return True
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        return False
    raise TimeoutError(f"nothing happened in {LONGEST:.0f} s")


def differences(expected: Path, found: Path) -> list[str]:
    """What of two run folders differs that should be equal to the last bit."""
    one, two = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (expected, found))
    lost = []
    for part in ("state_dict", "current_model_state"):
        for name in one.get(part, {}):
            if not torch.equal(one[part][name], two[part][name]):
                lost.append(f"{part} {name}")
    for name in ("global_step", "epoch", "lr_schedulers"):
        if one[name] != two[name]:
            lost.append(name)
    results = [json.loads((f / "results.json").read_text()) for f in (expected, found)]
    lost += [f"results {name}" for name in ("metrics", "epochs", "steps") if results[0][name] != results[1][name]]
    if (expected / "metrics.csv").read_text() != (found / "metrics.csv").read_text():
        lost.append("metrics.csv")
    ids = {json.loads(f.read_text())["wandb_id"] for f in found.glob("environment*.json")}
    return lost if len(ids) == 1 else [*lost, f"one W&B run: {ids}"]
