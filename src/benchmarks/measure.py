"""Timing and memory measurement. Cases take turns, so that other load on the machine affects them all alike."""

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

from datamodules.core.errors import UserError, reason
from datamodules.core.progress import track

from ..runs.environment import cpu_name

RESULTS = Path("results")
PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
precision = "32"  # of the products: below 32, autocast


def use(device: str | None, products: str = "32") -> None:
    """From here on tensors and modules are made on this device (default: a GPU if there is one), and steps compute so.

    Raises:
        UserError: there is no such device.
    """
    global precision
    try:
        torch.set_default_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1)
    except (RuntimeError, AssertionError) as error:  # of as many kinds as there are devices
        torch.set_default_device("cpu")
        raise UserError(f"--device {device}: {reason(error)}: pass cpu or cuda") from error
    precision = products


def on_gpu() -> bool:
    """Whether measurements run on a GPU."""
    return torch.get_default_device().type == "cuda"


def autocast() -> torch.autocast:
    dtype, kind = PRECISIONS[precision], torch.get_default_device().type
    kind = "cpu" if kind == "meta" else kind  # there is none for meta, where operations are counted
    return torch.autocast(kind, dtype, enabled=dtype != torch.float32)


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int, title: str) -> dict[str, float]:
    """Median seconds of each case over `rounds` rounds, after one untimed round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    turns = [(turn, name) for turn in range(rounds + 1) for name in cases]
    for turn, name in track(turns, title, total=len(turns), unit="steps"):
        synchronise()
        start = perf_counter()
        cases[name]()
        synchronise()
        if turn:
            seconds[name].append(perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def forward_step(forward: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad(), autocast():
        forward()


def training_step(forward: partial[torch.Tensor], hold_gradients: bool = False) -> None:
    """Forward and backward pass, as in training; `forward` is `partial(model, inputs)`.

    Gradients start empty. For `peak_bytes` they are held and set to zero instead: what a step frees first would hide as
    much of what it allocates.
    """
    forward.func.zero_grad(set_to_none=not hold_gradients)  # type: ignore[attr-defined]
    with autocast():
        loss = forward().square().mean()
    loss.backward()


def synchronise() -> None:
    if on_gpu():
        torch.cuda.synchronize()


def peak_bytes(make_step: Callable[..., Callable[[], object]], *args) -> int:
    """Peak memory that a step allocates, measured in a new process.

    `make_step(*args)`, which must be importable, builds everything and returns the step. The step first runs once, so that
    gradients and library buffers do not count. Uses the CUDA allocator's counters on a GPU, the kernel's on a CPU.
    """
    # the fork server has imported the module already, so every process starts at once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([make_step.__module__])
    # with small thresholds freed tensors go back to the kernel, so that it counts live ones only
    os.environ.update(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    try:
        with context.Pool(1) as pool:
            return pool.apply(
                _peak_here, (make_step, args, torch.get_num_threads(), torch.get_default_device(), precision)
            )
    finally:
        del os.environ["MALLOC_MMAP_THRESHOLD_"], os.environ["MALLOC_TRIM_THRESHOLD_"]


def _peak_here(
    make_step: Callable[..., Callable[[], object]], args: tuple, threads: int, device: torch.device, products: str
) -> int:
    torch.set_num_threads(threads)
    use(str(device), products)
    step = make_step(*args)
    step()
    if on_gpu():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak (VmHWM)
    before = status_bytes("VmRSS")
    step()
    return max(1, status_bytes("VmHWM") - before)  # of a tiny step nothing may be seen


def status_bytes(field: str) -> int:
    """A memory size from /proc/self/status."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


def hardware() -> dict[str, str | int]:
    """The columns that tell where a result was measured."""
    name = torch.cuda.get_device_name() if on_gpu() else cpu_name()
    return {"hardware": name, "precision": precision, "threads": torch.get_num_threads(), "torch": torch.__version__}


def save(rows: list[dict], name: str, finished: bool = True) -> pd.DataFrame:
    """Writes rows to results/<name>_<hardware>.csv, with the hardware in every row; prints them if `finished`."""
    machine = hardware()
    frame = pd.DataFrame([{**row, **machine} for row in rows])
    slug = re.sub(
        r"[^a-z0-9]+",
        "-",
        f"{machine['hardware']} {machine['threads']} threads {'' if precision == '32' else precision}".lower(),
    ).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{slug}.csv"
    frame.to_csv(path, index=False, float_format="%.6g")
    if not finished:
        return frame
    shown = frame.drop(columns=list(machine))
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_colwidth", 40):
        print(shown.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    print(f"{machine['hardware']}, {machine['threads']} threads, torch {machine['torch']}\nwritten: {path}")
    return frame
