"""What commands take to start: CPU seconds and memory beside `import torch`, in this checkout and in an older one.

This process stays small until all is measured: Linux counts the memory of the process that starts another as the other's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from datamodules.core.progress import track

from ..config.package import NAME

TORCH, DATAMODULES = ["-c", "import torch"], ["-c", "import datamodules"]
DIGITS = ["--config", "configs/digits_perceiver.yaml"]


def run(rounds: int = 5, before: Path | None = None) -> None:
    """Measures every command in turns and writes startup_HARDWARE.csv.

    Args:
        rounds: number of timed rounds, after one untimed.
        before: another checkout, whose commands take turns with ours.
    """
    with tempfile.TemporaryDirectory() as folder:
        cases = {("-", "import torch"): (Path.cwd(), TORCH), ("this", "import datamodules"): (Path.cwd(), DATAMODULES)}
        for name, place in (("before", before), ("this", Path.cwd())):
            if place is not None:
                runs = train(place, Path(folder, name))
                cases |= {(name, command): (place, words) for command, words in commands(runs).items()}
        measured: dict[tuple, list[tuple[float, float, float]]] = {case: [] for case in cases}
        turns = [(turn, case) for turn in range(rounds + 1) for case in cases]
        for turn, case in track(turns, "starting commands", total=len(turns), unit="starts"):
            found = measure(*cases[case])
            if turn:
                measured[case].append(found)

    from .measure import save  # imports torch

    rows = []
    torch_seconds = median(cpu for cpu, _, _ in measured["-", "import torch"])
    for (checkout, command), found in measured.items():
        cpu, wall, memory = (median(values) for values in zip(*found, strict=True))
        row = {"checkout": checkout, "command": command, "cpu_s": cpu, "wall_s": wall, "peak_mb": memory}
        rows.append(row | {"cpu_over_torch_s": cpu - torch_seconds, "rounds": rounds, "load": os.getloadavg()[0]})
    save(rows, "startup")


def commands(runs: Path) -> dict[str, list[str]]:
    """What is started, as words after `python`."""
    return {
        "compare --help": ["-m", f"{NAME}.compare", "--help"],
        "compare, three runs": ["-m", f"{NAME}.compare", str(runs)],
        "fit --help": ["-m", f"{NAME}.fit", "--help"],
        "fit --model.help": ["-m", f"{NAME}.fit", "--model.help", f"{NAME}.tasks.Classification"],
        "fit, a misspelt option": ["-m", f"{NAME}.fit", *DIGITS, "--trainer.max_epoch", "3"],
    }


def train(checkout: Path, runs: Path) -> Path:
    """Three short runs, made by the checkout itself."""
    for seed in range(3):
        options = ["--runs_dir", str(runs), "--trainer.max_epochs", "1", "--seed_everything", str(seed)]
        command = [sys.executable, "-m", f"{NAME}.fit", *DIGITS, *options]
        subprocess.run(command, cwd=checkout, env=quiet(), check=True, capture_output=True)
    return runs


def measure(folder: Path, words: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak megabytes of a Python command."""
    start = perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=quiet(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # waited for here
    return usage.ru_utime + usage.ru_stime, perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def quiet() -> dict[str, str]:
    return {**os.environ, "WANDB_MODE": "disabled"}
