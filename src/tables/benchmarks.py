"""Tables of what `bytebench benchmark` measured: time, memory and the simulation of intervals."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd

from .text import load_results, markdown, seconds


def side_by_side(name: str, labels: dict[str, str], time_ratio: str, memory_ratio: str) -> str:
    """Time and memory of a training step against the fastest other implementation, at every shape."""
    frame, rows = load_results(name), []
    for shape, label in labels.items():
        cases = {case["implementation"]: case for case in frame[frame["shape"] == shape].to_dict("records")}
        ours, checkpointed = cases.pop("ours"), cases.pop("ours, checkpointed", None)
        cases.pop("ours, without axes", None)
        best = min(case["forward_backward_s"] for case in cases.values())
        row = [label, seconds(ours["forward_backward_s"]), seconds(best)]
        row += [f"{case[memory_ratio]:.2f}" for case in (ours, checkpointed) if case]
        row.insert(3, f"{ours[time_ratio]:.2f}")
        if "executed_gflops" in ours:
            most = max(case["executed_gflops"] for case in cases.values())
            row += [f"{ours['executed_gflops'] / most:.2f}", f"{100 * ours['share_of_product_limit']:.0f} %"]
        rows.append(row)
    header = ["shape", "ours", "best peer", "time", "memory of a step", "with checkpointing"]
    return markdown([*header, "operations", "of matrix speed"][: len(rows[0])], rows)


def perceiver() -> str:
    labels = {
        "small": "small: 32 x 784 elements, 64 latents of 128",
        "audioset": "AudioSet: 13,024 elements, 512 latents of 1024",
        "imagenet": "ImageNet: 50,176 elements, 512 latents of 1024",
        "imagenet_2": "the same, 2 images",
    }
    return side_by_side("perceiver", labels, "forward_backward_ratio", "memory_ratio")


def scaling() -> str:
    frame = load_results("scaling")
    last = frame.groupby("model", sort=False).last()
    rows = [
        [model, f"{row.elements:,.0f}", f"N^{row.step_s_exponent:.2f}", f"N^{row.peak_mib_exponent:.2f}"]
        for model, row in last.iterrows()
    ]
    return markdown(["model", "measured up to", "time grows as", "memory grows as"], rows)


def lambda_peers() -> str:
    shapes = load_results("lambda_peers")["shape"].unique()
    labels = {shape: re.sub(r"(r=)?(\d+)$", r"scope \2", shape) for shape in shapes}
    return side_by_side("lambda_peers", labels, "time_ratio", "memory_ratio")


def lambda_networks() -> str:
    rows = [
        [row["network"], f"{row['parameters'] / 1e6:.1f} M", seconds(row["forward_backward_s"]), f"{row['ratio']:.2f}"]
        for row in load_results("lambda_networks").to_dict("records")
    ]
    return markdown(["network", "parameters without head", "step", "ratio to ResNet-50"], rows)


def lambda_efficientnet() -> str:
    frame = load_results("lambda_efficientnet")
    rows = []
    for ours, other in zip(frame.iloc[::2].itertuples(), frame.iloc[1::2].itertuples(), strict=True):
        row = [f"{ours.network} at {ours.side}", f"{ours.published_top1} %", f"{other.network} at {other.side}"]
        rows.append([*row, f"{other.published_top1} %", f"{ours.forward_backward_speedup:.2f} times as fast"])
    return markdown(["network", "published", "EfficientNet", "published", "training, here"], rows)


def overhead() -> str:
    frame = load_results("overhead").dropna(subset="step_s")
    rows = [[row["case"], f"{1000 * row['step_s']:.1f} ms", f"{row['ratio']:.3f}"] for row in frame.to_dict("records")]
    return markdown(["step", "median", "ratio to the bare loop"], rows)


def processes() -> str:
    frame = load_results("overhead").dropna(subset="samples_per_s")
    rows = [[row["case"], f"{row['samples_per_s']:.0f}", f"{row['gain']:.2f}"] for row in frame.to_dict("records")]
    return markdown(["case", "samples/s", "speed-up"], rows)


def statistics() -> str:
    """The simulation of intervals and verdicts: the lowest and the highest share over all cases with so many seeds."""
    frame, rows = load_results("statistics"), []
    unlike = frame["seed_spread"].astype(str).str.contains("and")
    frame.loc[unlike, "measure"] += ", unlike spreads"
    for (measure, seeds), cases in frame.groupby(["measure", "seeds"], sort=False):
        other = [span(cases[name]) for name in ("over_samples_alone", "without_moderation", "without_correction")]
        rows.append([measure, seeds, len(cases), span(cases["share"]), *other])
    others = ["over samples alone", "without moderation", "and without correction"]
    return markdown(["measure", "seeds", "cases", "here", *others], rows)


def span(values: pd.Series) -> str:
    low, high = 100 * values.min(), 100 * values.max()
    return "" if pd.isna(low) else f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"


TABLES: dict[str, Callable[[], str]] = {
    "perceiver": perceiver,
    "scaling": scaling,
    "lambda_peers": lambda_peers,
    "lambda_networks": lambda_networks,
    "lambda_efficientnet": lambda_efficientnet,
    "overhead": overhead,
    "processes": processes,
    "statistics": statistics,
}
