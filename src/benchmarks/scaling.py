"""Cost of a training step against the number of elements M, for a Perceiver and for self-attention on all elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from datamodules import DataSpec, ModalitySpec

from ..backbones import Perceiver, Transformer
from .measure import RESULTS, alternate, peak_bytes, save, training_step

matplotlib.use("agg")
import matplotlib.pyplot as plt

ELEMENTS = [2**power for power in range(10, 19)]
MAX_STEP = 6.0  # seconds; larger sizes of a model are skipped if their steps would take longer
FIT_FROM = 16_384  # the exponent is fitted to sizes from here on, or to the last four of a model that stops earlier


def make_forward(name: str, elements: int) -> partial[Tensor]:
    """The forward pass of a Perceiver (64 latents, one cross-attend, two self-attends) or of two transformer blocks."""
    torch.manual_seed(0)
    spec = DataSpec({"sound": ModalitySpec(1, 65, elements, (elements,), 1)}, "single_label", ("any",))
    models: dict[str, Callable[[], nn.Module]] = {
        "Perceiver": lambda: Perceiver(spec, 64, 128, cross_attends=1, self_attends_per_block=2),
        "Transformer": lambda: Transformer(spec, dim=64, depth=2, heads=4, max_side=None),
    }
    return partial(models[name](), spec.example_inputs())


def make_step(name: str, elements: int) -> Callable[[], None]:
    return partial(training_step, make_forward(name, elements))


def make_memory_step(name: str, elements: int) -> Callable[[], None]:
    return partial(training_step, make_forward(name, elements), hold_gradients=True)


def run(rounds: int = 3) -> pd.DataFrame:
    """Seconds and peak memory of forward + backward at every M, with fitted exponents. Also writes a log-log plot."""
    rows: list[dict] = []
    names = ["Perceiver", "Transformer"]
    last: dict[str, float] = {}
    for elements in ELEMENTS:
        names = [name for name in names if last.get(name, 0.0) * 4 < MAX_STEP or name == "Perceiver"]
        seconds = alternate({name: make_step(name, elements) for name in names}, rounds, f"M = {elements:,}")
        last = seconds
        for name in names:
            bytes_ = peak_bytes(make_memory_step, name, elements)
            rows.append({"model": name, "elements": elements, "step_s": seconds[name], "peak_mib": bytes_ / 2**20})
    frame = pd.DataFrame(rows)
    for name, column in ((n, c) for n in frame["model"].unique() for c in ("step_s", "peak_mib")):
        frame.loc[frame["model"] == name, f"{column}_exponent"] = exponent(frame[frame["model"] == name], column)
    plot(frame)
    return save(frame.to_dict("records"), "scaling")


def exponent(frame: pd.DataFrame, column: str) -> float:
    """Slope of the line fitted to the log-log points of large M."""
    large = frame[frame["elements"] >= FIT_FROM]
    large = large if len(large) > 3 else frame.tail(4)
    return float(np.polyfit(np.log(large["elements"]), np.log(large[column]), 1)[0])


def plot(frame: pd.DataFrame) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, column, label in zip(axes, ("step_s", "peak_mib"), ("seconds per step", "peak MiB"), strict=True):
        for name, group in frame.groupby("model"):
            slope = group[f"{column}_exponent"].iloc[0]
            axis.loglog(group["elements"], group[column], "o-", base=2, label=f"{name}, exponent {slope:.2f}")
        axis.set(xlabel="elements M", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle("Forward + backward, one example, float32")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "scaling.png", dpi=120)
    plt.close(figure)
