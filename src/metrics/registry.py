"""What a metric is called, its unit, whether higher is better and how it is printed: said here, once.

A new metric is one entry of `METRICS`, or one call of `register` from outside. A task computes values under these names;
checkpoints, tables, pages and comparisons look up the rest here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from datamodules import UserError

from .contributions import correct, precision_contributions

Predictions = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: the key in results.json.
        title: what people call it.
        unit: `fraction` (0 to 1, published in percent), `count`, or any other unit, such as `standard deviations`.
        higher_is_better: the direction of checkpoints, rankings and differences.
        main: whether runs may be ranked by it; of several, the one registered first is used.
        in_tables: whether the terminal's tables show it.
        contributions: predictions of a run to one number per sample, whose mean is the metric; None where there is none.
        compute: predictions of a split to the value, for metrics that are not part of a task; None where they lack what it
            needs. Predictions are arrays: `target`, and `predicted` (classes) or `scores`.
    """

    name: str
    title: str
    unit: str = "fraction"
    higher_is_better: bool = True
    main: bool = False
    in_tables: bool = True
    contributions: Callable[[Predictions], np.ndarray | None] | None = None
    compute: Callable[[Predictions], float | None] | None = None

    def format(self, value: float | None, signed: bool = False) -> str:
        """The value as tables print it: 0.8123, +0.0210, or 1,000 for counts; `-` where there is none."""
        if value is None or np.isnan(value):
            return "-"
        return f"{value:,.0f}" if self.unit == "count" else f"{value:{'+' if signed else ''}.4f}"

    def from_published(self, value: float) -> float:
        """A published figure in this metric's unit: papers print fractions in percent."""
        return value / 100 if self.unit == "fraction" else value


def coco(prefix: Literal["", "segm_"], what: str) -> list[Metric]:
    sizes = {"small": "small objects", "medium": "medium objects", "large": "large objects"}
    precision = {**sizes, "75": "IoU 0.75"}
    recall = {**sizes, **{str(count): f"{count} detections" for count in (1, 10, 100)}}
    return [
        Metric(f"{prefix}map_50", f"{what} AP50"),
        *(Metric(f"{prefix}map_{name}", f"{what} AP, {text}", in_tables=False) for name, text in precision.items()),
        *(Metric(f"{prefix}mar_{name}", f"{what} AR, {text}", in_tables=False) for name, text in recall.items()),
    ]


# In the order of tables; the first main metric that runs have is the one they are ranked by
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("segm_map", "mask AP", main=True),
        *coco("segm_", "mask"),
        Metric("map", "mAP", main=True, contributions=precision_contributions),
        *coco("", "box"),
        Metric("miou", "mean IoU", main=True),
        Metric("top1", "top-1", main=True, contributions=correct),
        Metric("top5", "top-5"),
        Metric("ridge_map", "mAP, closed form"),
        Metric("ridge_top1", "top-1, closed form"),
        Metric("rmse", "RMSE", unit="standard deviations", higher_is_better=False, main=True),
        Metric("r2", "R²", unit="explained variance"),
        Metric("loss", "loss", unit="nats", higher_is_better=False, main=True),
        Metric("map_classes", "classes with a positive", unit="count"),
        Metric("samples", "samples", unit="count"),
        Metric("penalty", "chosen penalty", unit="penalty", in_tables=False),
        Metric("ridge_penalty", "chosen penalty, closed form", unit="penalty", in_tables=False),
    )
}


def register(metric: Metric) -> None:
    """Make a metric known, before a task that logs it is built.

    Raises:
        UserError: another metric has this name.
    """
    if METRICS.setdefault(metric.name, metric) != metric:
        raise UserError(f"a metric called {metric.name!r} exists already: choose another name")


def metric_named(name: str) -> Metric:
    """The metric of this name.

    Raises:
        UserError: it was never registered.
    """
    if name not in METRICS:
        raise UserError(
            f"no metric is called {name!r}: add it to src/metrics/registry.py, or call register(Metric(...))"
        )
    return METRICS[name]


def in_table_order(names: Iterable[str]) -> list[str]:
    """Those that tables show, counts left out, in the order of `METRICS`."""
    found = set(names)
    return [name for name, m in METRICS.items() if name in found and m.in_tables and m.unit != "count"]


def main_metric(names: Iterable[str]) -> str | None:
    """The metric that runs with these metrics are ranked by."""
    found = set(names)
    return next((name for name, metric in METRICS.items() if name in found and metric.main), None)


def is_count(name: str) -> bool:
    return name in METRICS and METRICS[name].unit == "count"
