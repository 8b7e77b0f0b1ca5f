"""Side-by-side measurement: the cases take turns in one run, so that other work on the machine meets them all alike."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch

from datamodules.core.progress import track

from ..runs.environment import cpu_name

RESULTS = Path("results")


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int, what: str) -> dict[str, float]:
    """Median seconds of each case over `rounds` rounds, one untimed round before."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    turns = [(turn, name) for turn in range(rounds + 1) for name in cases]
    for turn, name in track(turns, what, total=len(turns), unit="steps"):
        synchronise()
        began = perf_counter()
        cases[name]()
        synchronise()
        if turn:
            seconds[name].append(perf_counter() - began)
    return {name: median(times) for name, times in seconds.items()}


def forward_step(forward: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad():
        forward()


def training_step(forward: partial[torch.Tensor]) -> None:
    """Forward and backward of a model, `forward` being partial(model, inputs), from empty gradients as training has them."""
    forward.func.zero_grad(set_to_none=True)  # type: ignore[attr-defined]
    forward().square().mean().backward()


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes(make_step: Callable[..., Callable[[], object]], *args) -> int:
    """Most memory that a step takes beyond what lay there before it, measured in a process of its own.

    make_step(*args), which must be importable, builds everything and returns the step. The step runs once before, so that
    gradients and libraries' buffers count to what lay there. On a GPU its allocator tells; on a CPU the kernel.
    """
    # a process that has imported what is measured and done nothing else forks the others, which so start at once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([make_step.__module__])
    # small thresholds, so that freed tensors go back to the kernel and its count is that of live ones
    os.environ.update(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    try:
        with context.Pool(1) as pool:
            return pool.apply(_peak_here, (make_step, args, torch.get_num_threads()))
    finally:
        del os.environ["MALLOC_MMAP_THRESHOLD_"], os.environ["MALLOC_TRIM_THRESHOLD_"]


def _peak_here(make_step: Callable[..., Callable[[], object]], args: tuple, threads: int) -> int:
    torch.set_num_threads(threads)
    step = make_step(*args)
    step()
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest size so far
    before = status_bytes("VmRSS")
    step()
    return status_bytes("VmHWM") - before


def status_bytes(field: str) -> int:
    """A size of this process as Linux tells it."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


def hardware() -> dict[str, str | int]:
    """What every row of a result says of where it was measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    name = gpu or cpu_name()
    return {"hardware": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def save(rows: list[dict], name: str, finished: bool = True) -> pd.DataFrame:
    """Write rows as results/<name>_<hardware>.csv, hardware and threads in every row; print them when they are all there."""
    where = hardware()
    frame = pd.DataFrame([{**row, **where} for row in rows])
    slug = re.sub(r"[^a-z0-9]+", "-", f"{where['hardware']} {where['threads']} threads".lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{slug}.csv"
    frame.to_csv(path, index=False, float_format="%.6g")
    if not finished:
        return frame
    shown = frame.drop(columns=list(where))
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_colwidth", 40):
        print(shown.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print(f"{where['hardware']}, {where['threads']} threads, torch {where['torch']}\nwritten: {path}")
    return frame
