"""Kill runs at every system call that changes a file, and let them go on: `make faults`, `make faults-all`.

A small library (boundaries.c), preloaded into all processes here, counts the calls that write, sync, rename, link, make or
remove something below a folder, and strikes at the k-th of them: it kills the process before the call, kills it in the
middle of a write, or says that the disk is full. The same command then goes on with `--resume auto`. Lost is what differs
from a run that was left alone: weights, averages of weights, metrics, metrics.csv, predictions. Stuck is a run that does
not go on, or that ends a full disk with more than a line.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np
import torch
import yaml

import datamodules.prepare
import src.fit
import src.suite
from src.suites import warm
from tests.support import ROOT, faults
from tests.support.faults import Forked

KILL, TEAR, FULL = 1, 2, 3
KINDS = {"kill": KILL, "tear": TEAR, "full": FULL}
PLAN = struct.Struct("4q512s2048s")  # as in boundaries.c
CONFIG = ROOT / "configs" / "digits_perceiver.yaml"
SMALL = {
    "trainer.max_epochs": 2,
    "trainer.limit_train_batches": 4,
    "trainer.log_every_n_steps": 2,
    "model.dropout": 0.1,
    "model.backbone.num_latents": 4,
    "model.backbone.latent_dim": 8,
    "model.backbone.cross_attends": 1,
    "model.backbone.self_attends_per_block": 1,
    "model.backbone.self_heads": 1,
}
WORDS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


class Plan:
    """What the preloaded library does, shared with all processes that it is loaded into."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.memory = mmap(file.fileno(), PLAN.size)

    def arm(self, folder: Path, number: int, kind: int) -> None:
        self.memory[:] = PLAN.pack(number, 0, kind, 1, b"", str(folder).encode())

    def disarm(self) -> tuple[int, str]:
        """How many calls there were, and which was struck."""
        number, counted, kind, _, call, folder = PLAN.unpack(self.memory[:])
        self.memory[:] = PLAN.pack(number, counted, kind, 0, call, folder)
        return counted, call.split(b"\0")[0].decode(errors="replace")


@dataclass
class Scenario:
    """Something to strike.

    Attributes:
        start: begins it, or goes on with it, in a folder.
        differences: of what one folder holds from what another does.
        base: folder to begin from; an empty one if None.
    """

    name: str
    start: Callable[[Path], list[Forked]]
    differences: Callable[[Path, Path], list[str]]
    base: Path | None = None

    def fresh(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        if self.base is None:
            folder.mkdir(parents=True)
        else:
            shutil.copytree(self.base, folder)
        return folder

    def run(self, folder: Path) -> tuple[int, str]:
        """The first exit status that is no success, and what was said."""
        found: list[tuple[int, str]] = []
        for process in self.start(folder):
            if found and found[0][0]:
                process.kill()  # as launchers do where a rank has died; alone, it waits for ten minutes
            found.append(faults.finish(process))
        status = next((status for status, _ in found if status), 0)
        return status, found[0][1]


def command(folder: Path) -> list[str]:
    return ["--config", str(averaged(folder)), "--runs_dir", str(folder / "runs"), *WORDS, "--resume", "auto"]


def fit(folder: Path) -> list[Forked]:
    return [Forked(src.fit.main, command(folder), WANDB_MODE="disabled")]


def averaged(folder: Path) -> Path:
    """The config with averages of the weights, which must survive too."""
    path = folder / "config.yaml"
    if not path.exists():
        config = yaml.safe_load(CONFIG.read_text())
        config["trainer"] |= faults.EMA["trainer"]
        path.write_text(yaml.safe_dump(config))
    return path


def fit_ranks(folder: Path) -> list[Forked]:
    return faults.ranks([*command(folder), *faults.RANKS], WANDB_MODE="disabled")


def suite(folder: Path) -> list[Forked]:
    (folder / "suites").mkdir(exist_ok=True)
    averaged(folder)
    path = folder / "suites" / "two.yaml"
    if not path.exists():
        variants = [{"name": name, "config": "config", "overrides": SMALL} for name in ("first", "second")]
        path.write_text(yaml.safe_dump({"source": "none", "variants": variants}))
    return [Forked(suite_of_forks, [str(path), "--runs_dir", str(folder / "runs")], WANDB_MODE="disabled")]


def suite_of_forks(arguments: list[str]) -> None:
    """A suite whose runs are forked from it: a server of forks imports everything first, for ten seconds."""
    warm.multiprocessing.get_context = lambda method: multiprocessing.context.ForkContext()
    src.suite.main(arguments)


def prepare(folder: Path) -> list[Forked]:
    words = ["dialpad", "--out", str(folder / "runs"), "--clips", "6", "4", "4", "--workers", "1"]
    return [Forked(datamodules.prepare.main, words)]


def run_differences(expected: Path, found: Path) -> list[str]:
    """Of all runs of two folders."""
    lost = []
    for results in sorted((expected / "runs").rglob("results.json")):
        name = results.parent.relative_to(expected)
        if not (found / name / "results.json").is_file():
            lost.append(f"{name} has not finished")
            continue
        lost += [f"{name}: {what}" for what in faults.differences(results.parent, found / name)]
        one, two = (np.load(folder / name / "predictions.npz") for folder in (expected, found))
        lost += [f"{name}: predictions {key}" for key in one if not np.array_equal(one[key], two[key])]
        for path in (found / name).rglob("*.part"):
            lost.append(f"{path} was left")
    return lost


def file_differences(expected: Path, found: Path) -> list[str]:
    one, two = ({f.name: f.read_bytes() for f in (folder / "runs").glob("*")} for folder in (expected, found))
    return [f"file {name}" for name in sorted(one.keys() | two.keys()) if one.get(name) != two.get(name)]


def strike_all(scenario: Scenario, kind: str, place: Path, plan: Plan, every: int, first: int = 1) -> list[str]:
    """Strike at every `every`-th call; returns what was lost or stuck."""
    reference = scenario.fresh(place / f"{scenario.name} alone")
    plan.arm(reference / "runs", 0, 0)
    status, said = scenario.run(reference)
    total, _ = plan.disarm()
    assert status == 0, said
    lost, struck, began = [], 0, time.monotonic()
    for number in range(first, total + 1, every):
        folder = scenario.fresh(place / f"{scenario.name} struck")
        plan.arm(folder / "runs", number, KINDS[kind])
        status, said = scenario.run(folder)
        _, call = plan.disarm()
        where = f"{scenario.name}, {kind} at call {number} of {total} ({call})"
        struck += bool(call)
        if kind == "full":
            lines = [line for line in said.splitlines() if line.startswith("error: ")]
            if "Traceback" in said or (status and len(lines) != 1) or status not in (0, 1, 2):
                lost.append(f"{where}: status {status}: {said[-300:]}")
        status, said = scenario.run(folder)
        if status:
            lost.append(f"{where}: does not go on: {said[-300:]}")
        else:
            lost += [f"{where}: {what}" for what in scenario.differences(reference, folder)]
    seconds = time.monotonic() - began
    print(
        f"{scenario.name}: {total} calls; {kind}: {struck} struck, {len(lost)} lost or stuck, {seconds:.0f} s",
        flush=True,
    )
    for line in lost:
        print(f"  {line}", flush=True)
    return lost


def half_done(place: Path, plan: Plan) -> Path:
    """A run that was killed after the checkpoint of its first epoch."""
    folder, single = place / "half done", Scenario("run", fit, run_differences)
    checkpoints = folder / "runs" / "digits" / "perceiver" / "seed0" / "checkpoints"
    plan.arm(single.fresh(folder) / "runs", 0, 0)
    single.run(folder)
    total, _ = plan.disarm()
    for number in range(total // 3, total, 4):
        plan.arm(single.fresh(folder) / "runs", number, KILL)
        single.run(folder)
        plan.disarm()
        if (checkpoints / "last.ckpt").is_file():
            return folder
    raise AssertionError("no call follows the first checkpoint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=["run", "resume", "prepare", "suite", "ranks"])
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=KINDS)
    parser.add_argument("--every", type=int, default=1, help="strike at every N-th call (default: 1)")
    parser.add_argument("--first", type=int, default=1, help="number of the first call that is struck (default: 1)")
    options = parser.parse_args()
    if "FAULTS" not in os.environ:
        restart_preloaded()
    torch.set_num_threads(1)
    plan, lost = Plan(Path(os.environ["FAULTS"])), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        faults.warm_up()
        scenarios = {
            "run": lambda: Scenario("run", fit, run_differences),
            "resume": lambda: Scenario("resume", fit, run_differences, half_done(place, plan)),
            "prepare": lambda: Scenario("prepare", prepare, file_differences),
            "suite": lambda: Scenario("suite", suite, run_differences),
            "ranks": lambda: Scenario("ranks", fit_ranks, run_differences),
        }
        for name in options.scenarios:
            scenario = scenarios[name]()
            for kind in options.kinds:
                lost += strike_all(scenario, kind, place, plan, options.every, options.first)
    print(f"{len(lost)} lost or stuck")
    sys.exit(bool(lost))


def restart_preloaded() -> None:
    """Run this command again, with the library in it and in all processes that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        library, plan = Path(folder, "boundaries.so"), Path(folder, "plan")
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        plan.write_bytes(bytes(PLAN.size))
        command = [sys.executable, "-m", "tests.support.boundaries", *sys.argv[1:]]
        environment = faults.environment() | {"LD_PRELOAD": str(library), "FAULTS": str(plan), "WANDB_MODE": "disabled"}
        sys.exit(subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
