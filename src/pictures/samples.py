"""Samples of a data set with their targets and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from datamodules import Batch, ByteArrayDataModule
from datamodules.core.datamodule import CompactBatches, SplitName
from datamodules.core.order import SampleRef

from ..tasks.base import Task
from .permuted import unpermute_array
from .style import CYCLE, INK, QUIET, RIGHT, WIDTH, WRONG, picture
from .views import View, make_views

THRESHOLD = 0.5  # minimum score of a predicted label or a detected object
BARS = 5  # labels shown for a sample, at least
BAR = "#C4C4C4"
NAME_LENGTH = 16  # characters shown of a class name, at most


@dataclass(frozen=True)
class Samples:
    """Some samples of a split with everything that the pictures need.

    Args:
        data: the datamodule.
        compact: the compact batch from the loader, on the model's device.
        batch: the batch of byte arrays that the model receives.
        views: a view of each modality.
        task: that made the predictions.
        predictions: one per example, see `Task.predict`.
        classes: names of the classes.
    """

    data: ByteArrayDataModule
    compact: dict
    batch: Batch
    views: dict[str, View]
    task: Task
    predictions: Any
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.batch.keys)

    def caption(self, sample: int) -> tuple[str, str]:
        """Returns a line with target and prediction, and a colour for correct, wrong or neither."""
        target = self.batch.target[sample]
        if not self.batch.weight[sample]:
            return "could not be decoded", QUIET
        names = [truncate(name) for name in self.classes]
        text, right = self.task.caption(self.predictions[sample], target, names)
        if right is None:
            return text, INK
        return (f"✓ {text}", RIGHT) if right else (f"✗ {text}", WRONG)


def load_samples(
    task: Task, data: ByteArrayDataModule, split: SplitName, count: int, device: torch.device | str = "cpu"
) -> Samples:
    """Loads samples spread evenly over a split, and the task's predictions for them."""
    source = data.split(split)
    rows = torch.linspace(0, len(source.keys) - 1, min(count, len(source.keys))).round().long().unique().tolist()
    refs = [SampleRef(row, epoch=0, real=True) for row in rows]
    compact = CompactBatches(source, data.seed, data.on_bad_sample)[refs]
    compact = data.transfer_batch_to_device(compact, torch.device(device), 0)
    batch = data.flatten(compact)
    views = make_views(data, compact, {name: unpermute_array(array) for name, array in batch.inputs.items()})
    names = getattr(data, "class_names", None)  # if the spec has only numbers
    with torch.no_grad():
        predictions = task.eval().predict(batch)
    return Samples(data, compact, batch, views, task, predictions, names() if names else data.spec.classes)


def draw_samples(samples: Samples, path: Path, title: str) -> None:
    """Draws all samples in one picture, with target and prediction as a caption or, for multi-label tasks, as bars."""
    views = list(samples.views.values())
    bars, objects = samples.task.drawn_as == "bars", samples.task.drawn_as == "objects"
    zoom = 2.0 if objects else 1.0
    widths = [zoom * view.width for view in views] + [2.2] * bars
    columns = min(len(samples), max(1, int(WIDTH // sum(widths))))
    rows = ceil(len(samples) / columns)
    height = max(zoom * view.height for view in views) + (0.35 if bars else 0.25)
    with picture(path, columns * sum(widths), rows * height, title) as figure:
        grid = figure.add_gridspec(rows, columns * len(widths), width_ratios=widths * columns)
        for sample in range(len(samples)):
            row, column = divmod(sample, columns)
            caption, colour = samples.caption(sample)
            for number, view in enumerate(views):
                axes = figure.add_subplot(grid[row, column * len(widths) + number], projection=view.projection)
                view.draw(axes, sample)
                if view.wide and row < rows - 1:
                    axes.tick_params(labelbottom=False)
                    axes.set_xlabel("")
                if number == 0:
                    axes.set_title(
                        wrap_caption(caption, widths[0]), color=colour, loc="left" if view.wide else "center"
                    )
                if objects:
                    draw_objects(axes, samples.batch.target[sample], samples.predictions[sample], samples.classes)
            if bars:
                axes = figure.add_subplot(grid[row, (column + 1) * len(widths) - 1])
                draw_bars(axes, samples.predictions[sample], samples.batch.target[sample].cpu(), samples.classes)


def draw_bars(axes: Axes, scores: Tensor, target: Tensor, classes: Sequence[str]) -> None:
    """Draws the scores of the labels of a sample (blue) and of the best other labels (red above the threshold, else grey)."""
    by_score = scores.argsort(descending=True).tolist()
    positives = [k for k in by_score if target[k]]
    negatives = [k for k in by_score if not target[k]][: max(2, BARS - len(positives))]
    order = sorted(positives + negatives, key=lambda k: -scores[k])
    for row, k in enumerate(order):
        score = float(scores[k])
        colour = RIGHT if target[k] else WRONG if score >= THRESHOLD else BAR
        axes.barh(row, score, color=colour, height=0.7)
        inside = score > 0.3
        ink = "white" if inside and colour != BAR else INK
        x, side = (score - 0.02, "right") if inside else (score + 0.02, "left")
        axes.text(x, row, f"{score:.0%}", ha=side, va="center", fontsize=6.5, color=ink)
    marks = [
        "✓"
        if target[k] and scores[k] >= THRESHOLD
        else "missed"
        if target[k]
        else "✗"
        if scores[k] >= THRESHOLD
        else ""
        for k in order
    ]
    axes.set_yticks(range(len(order)), [f"{mark} {truncate(classes[k])}" for k, mark in zip(order, marks, strict=True)])
    for label, k in zip(axes.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if target[k] else "normal")
    axes.axvline(THRESHOLD, color=QUIET, linewidth=0.6, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.5, -0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines[["bottom"]].set_visible(False)


def draw_objects(axes: Axes, target: dict, found: dict[str, Tensor], classes: Sequence[str]) -> None:
    """Draws annotated boxes in dashed white with their classes, and detected objects in colour with mask, class and score."""
    for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        axes.add_patch(rectangle(box, edgecolor="white", linewidth=0.8, linestyle=(0, (2, 2))))
        axes.text(
            box[2], box[3], truncate(classes[label]), color="white", fontsize=6, ha="right", va="top", clip_on=True
        )
    objects = zip(*(found[name] for name in ("boxes", "labels", "scores", "masks")), strict=True)
    for number, (box, label, score, mask) in enumerate(objects):
        colour = CYCLE[number % len(CYCLE)]
        axes.contourf(mask.numpy(), levels=[0.5, 1.5], colors=[colour], alpha=0.45)
        axes.add_patch(rectangle(box.tolist(), edgecolor=colour, linewidth=1.1))
        x0, y0, *_ = box.tolist()
        above = y0 > 0.06 * len(mask)
        axes.text(
            x0, y0 - 1 if above else y0 + 1, f"{truncate(classes[label])} {score:.0%}", color="white", fontsize=6,
            va="bottom" if above else "top", bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def rectangle(box: list[float], **style: Any) -> Rectangle:
    """A box x0, y0, x1, y1 in pixels; imshow puts the centres of pixels on whole numbers."""
    x0, y0, x1, y1 = box
    return Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, **style)


def wrap_caption(caption: str, width: float) -> str:
    """Splits a caption into two lines if it is wider than a panel of `width` inches."""
    return caption if len(caption) < 15 * width else caption.replace(", ", "\n", 1)


def truncate(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
