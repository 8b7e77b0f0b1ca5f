"""Kill runs at random moments and let them go on: `make faults`. Prints what was tried and what was lost, which is nothing.

A run is killed (SIGKILL, or SIGTERM, which saves first) again and again, going on with `--resume auto` in between, until it
finishes. Lost is what then differs from the run that was never killed: weights, averaged weights, metrics, the log of
metrics, W&B's run id. Then every guard is tried: tests/src/training/test_resume.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

import datamodules.prepare
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
    """The same on two ranks that begin at once: as a command, the second would import everything while the first waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    command = options_of(folder, (*RANKS, *options))
    return [Forked(src.fit.main, command, NODE_RANK="0", LOCAL_RANK=rank, MASTER_PORT=port) for rank in "01"]


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


def kill_training(folder: Path, reference: Path, kills: int, seconds: float, chance: random.Random) -> list[str]:
    """Kill one run `kills` times before it may finish: at random moments, while it writes checkpoints, in its test."""
    lost: list[str] = []
    checkpoint = run_folder(folder) / "checkpoints" / "last.ckpt"
    process = fit(folder, "--resume", "auto")
    killed = 0
    while killed < kills:
        kind = chance.choice(["random", "terminated", "writing", "testing"])
        if kind == "writing":
            moment = wait_until(checkpoint.with_suffix(".ckpt.part").exists, process)
        elif kind == "testing":
            moment = wait_until(lambda: checkpoint.exists() and trained(checkpoint), process)
            time.sleep(chance.uniform(0, 0.03) * seconds)  # the test takes about so much of a run
        else:
            moment = True
            time.sleep(chance.uniform(0.3, 1) * seconds)
        if not moment or process.poll() is not None:  # it was done before: nothing to kill
            status, said = finish(process)
            if status:
                return [f"a run that broke: {said[-500:]}"]
            lost += differences(reference, run_folder(folder))
            shutil.rmtree(run_folder(folder))
            process = fit(folder, "--resume", "auto")
            continue
        process.send_signal(signal.SIGTERM if kind == "terminated" else signal.SIGKILL)
        finish(process)
        killed += 1
        print(f"kill {killed} of {kills} ({kind})", flush=True)
        process = fit(folder, "--resume", "auto")
    status, said = finish(process)
    return [
        *lost,
        *(differences(reference, run_folder(folder)) if status == 0 else [f"a run that broke: {said[-500:]}"]),
    ]


def trained(checkpoint: Path) -> bool:
    """Whether a checkpoint is of the end of training."""
    try:
        return torch.load(checkpoint, weights_only=True)["epoch"] == 2
    except (OSError, RuntimeError, EOFError):
        return False  # just being renamed


def kill_preparing(folder: Path, kills: int, chance: random.Random) -> list[str]:
    """Kill the writing of shards, which goes on with those that are whole; the bytes are the same in the end."""
    source = folder / "pictures"
    generator = np.random.default_rng(0)
    for split, count in (("train", 300), ("val", 60)):
        for number in range(count):
            place = source / split / f"n{number % 3:08d}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (200, 250, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number:06d}.JPEG")

    def prepare(out: Path) -> Forked:
        return Forked(datamodules.prepare.main, ["imagenet", "--source", str(source), "--out", str(out)])

    began = time.monotonic()
    status, said = finish(prepare(folder / "whole"))
    if status:
        return [f"preparing that broke: {said[-500:]}"]
    seconds = time.monotonic() - began
    for number in range(kills):
        process = prepare(folder / "killed")
        time.sleep(chance.uniform(0.2, 0.95) * seconds)
        process.kill()
        finish(process)
        print(f"kill {number + 1} of {kills} (preparing)", flush=True)
    status, said = finish(prepare(folder / "killed"))
    if status:
        return [f"preparing that broke: {said[-500:]}"]
    whole, killed = ({f.name: f.read_bytes() for f in (folder / name).glob("*")} for name in ("whole", "killed"))
    return [f"shards {name}" for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="of training and its test (default: 20)")
    parser.add_argument("--prepare-kills", type=int, default=4, help="of the writing of shards (default: 4)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        began = time.monotonic()
        status, said = finish(fit(folder / "whole run"))
        assert status == 0, said
        seconds = time.monotonic() - began
        reference = run_folder(folder / "whole run")
        lost = kill_training(folder / "killed run", reference, options.kills, seconds, chance)
        lost += kill_preparing(folder / "shards", options.prepare_kills, chance)
    guards = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "tests/src/training/test_resume.py"], cwd=ROOT, check=False
    )
    if guards.returncode:
        lost.append("a guard: see pytest's lines above")
    tried = options.kills + options.prepare_kills
    print(f"{tried} kills and every guard, {len(lost)} things lost", *lost, sep="\n")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
