"""Our loaders beside those that people use, on the same files, with the same work."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pandas as pd
import torch

from ..measure import alternate, save
from .files import Files, kinds, write
from .loaders import PEERS, ours

WORKERS = 2  # of the first batch


def run(rounds: int = 5, scale: float = 1.0) -> pd.DataFrame:
    """Medians over `rounds`, of one process with one thread, and of the first batch with two workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for files in kinds(scale):
        with tempfile.TemporaryDirectory() as root:
            rows += compared(files, Path(root), rounds)
    torch.set_num_threads(threads)
    return save(rows, "input_peers")


def compared(files: Files, root: Path, rounds: int) -> list[dict]:
    """A row for each peer: samples a second of both, and for pictures how much later our first batch comes."""
    write(files, root)
    there = {name: make for name, make in PEERS.items() if find_spec(name)}
    makers: dict[str, Callable[[int], Iterator]] = {
        "folder": partial(ours, files, root, False),
        "tars": partial(ours, files, root, True),
        **{name: partial(make, files, root) for name, make in there.items()},
    }
    seconds = alternate({name: partial(exhaust, make) for name, make in makers.items()}, rounds, files.name)
    first = first_batches(makers, rounds) if files.suffix == "jpg" else {}
    rows = []
    for name in PEERS:
        source = "tars" if name == "webdataset" else "folder"
        row: dict[str, Any] = {"files": files.name, "samples": files.count, "read_from": source, "peer": name}
        if name in there:
            speeds = files.count / seconds[source], files.count / seconds[name]
            row |= {"ours_per_s": speeds[0], "peer_per_s": speeds[1], "ratio": speeds[0] / speeds[1]}
            if first:
                row |= {"first_batch_ours_s": first[source], "first_batch_peer_s": first[name]}
                row["first_batch_later_s"] = first[source] - first[name]
        else:
            print(f"{files.name}: {name} is not installed, its row stays empty: pip install {name}")
        rows.append({**row, "installed": name in there, "load": round(os.getloadavg()[0], 2)})
    return rows


def exhaust(make: Callable[[int], Iterator]) -> None:
    for _ in make(0):
        pass


def first_batches(makers: dict[str, Callable[[int], Iterator]], rounds: int) -> dict[str, float]:
    """Median seconds from making a loader to its first batch; the end of its workers does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(rounds + 1):
        for name, make in makers.items():
            start = perf_counter()
            batches = make(WORKERS)
            next(batches)
            if turn:
                seconds[name].append(perf_counter() - start)
            del batches
            gc.collect()
    return {name: median(times) for name, times in seconds.items()}
