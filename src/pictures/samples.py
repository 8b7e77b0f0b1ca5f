"""Samples of a data set with their targets and what a model predicts."""

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
from torchvision.models.detection.roi_heads import paste_masks_in_image

from datamodules import Batch, ByteArrayDataModule
from datamodules.core.datamodule import CompactBatches, SplitName
from datamodules.core.order import SampleRef

from ..tasks.base import Task
from .permuted import restored
from .style import CYCLE, INK, QUIET, RIGHT, WIDTH, WRONG, picture
from .views import View, make_views

SURE = 0.5  # the score from which a label or an object counts as found
BARS = 5  # labels of a sample that are shown, at least; all that it has
BAR = "#C4C4C4"
LONGEST = 16  # letters of a class's name


@dataclass(frozen=True)
class Samples:
    """Some samples of a split, and all that pictures need of them.

    compact: as the loader gives them, on the model's device. batch: as the model gets them. views: how they are drawn.
    scores: (B, classes) shares from softmax or sigmoid; or, for detection, what was found in each image, in input pixels:
        boxes, labels from 0, scores, masks (n, H, W).
    """

    data: ByteArrayDataModule
    compact: dict
    batch: Batch
    views: dict[str, View]
    scores: Any
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.batch.keys)

    def caption(self, sample: int) -> tuple[str, str]:
        """What is in a sample and what was predicted, in a line, and the colour that says whether it is right."""
        target = self.batch.target[sample]
        if not self.batch.weight[sample]:
            return "could not be decoded", QUIET
        if self.data.spec.task == "detection":
            found = int((self.scores[sample]["scores"] >= SURE).sum())
            return f"{len(target['boxes'])} annotated, {found} found", INK
        if self.data.spec.task == "multi_label":
            there = [name for name, value in zip(self.classes, target.tolist(), strict=True) if value]
            return " + ".join(map(short, there)) or "no label", INK
        share, predicted = self.scores[sample].max(dim=0)
        said = f"{short(self.classes[predicted])} {share:.0%}"
        if predicted == target:
            return f"✓ {said}", RIGHT
        return f"✗ {said}, is {short(self.classes[target])}", WRONG


def load_samples(
    task: Task, data: ByteArrayDataModule, split: SplitName, count: int, device: torch.device | str = "cpu"
) -> Samples:
    """Samples spread evenly over a split, and what the task predicts of them."""
    source = data.split(split)
    rows = torch.linspace(0, len(source.keys) - 1, min(count, len(source.keys))).round().long().unique().tolist()
    refs = [SampleRef(row, epoch=0, real=True) for row in rows]
    compact = CompactBatches(source, data.seed, data.on_bad_sample)[refs]
    compact = data.transfer_batch_to_device(compact, torch.device(device), 0)
    batch = data.flatten(compact)
    views = make_views(data, compact, {name: restored(array) for name, array in batch.inputs.items()})
    names = getattr(data, "class_names", None)  # of data whose spec only numbers them
    return Samples(data, compact, batch, views, predict(task, batch), names() if names else data.spec.classes)


@torch.no_grad()
def predict(task: Task, batch: Batch) -> Any:
    """See Samples.scores."""
    task.eval()
    out: Any = task(batch.inputs)
    if task.data_spec.task == "single_label":
        return out.softmax(dim=1).cpu()
    if task.data_spec.task == "multi_label":
        return out.sigmoid().cpu()
    found, _ = task.detect(out)  # pyrefly: ignore
    side = next(iter(task.data_spec.modalities.values())).grid
    return [in_input(each, side) for each in found]


def in_input(found: dict[str, Tensor], side: Any) -> dict[str, Tensor]:
    """What was found in an image, with labels from 0 and masks as large as the input, for the objects that are sure."""
    sure = found["scores"] >= SURE
    boxes, masks = found["boxes"][sure].float(), found["masks"][sure].float()
    return {
        "boxes": boxes.cpu(),
        "labels": found["labels"][sure].cpu() - 1,
        "scores": found["scores"][sure].float().cpu(),
        "masks": (paste_masks_in_image(masks, boxes, side)[:, 0] > 0.5).cpu(),
    }


def draw_samples(samples: Samples, path: Path, title: str) -> None:
    """One picture of all samples: every modality, and target and prediction as a caption or, for several labels, bars."""
    views = list(samples.views.values())
    several = samples.data.spec.task == "multi_label"
    detection = samples.data.spec.task == "detection"
    zoom = 2.0 if detection else 1.0
    widths = [zoom * view.width for view in views] + [2.2] * several
    columns = min(len(samples), max(1, int(WIDTH // sum(widths))))
    rows = ceil(len(samples) / columns)
    height = max(zoom * view.height for view in views) + (0.35 if several else 0.25)
    with picture(path, columns * sum(widths), rows * height, title) as figure:
        grid = figure.add_gridspec(rows, columns * len(widths), width_ratios=widths * columns)
        for sample in range(len(samples)):
            row, column = divmod(sample, columns)
            caption, colour = samples.caption(sample)
            for place, view in enumerate(views):
                axes = figure.add_subplot(grid[row, column * len(widths) + place], projection=view.projection)
                view.draw(axes, sample)
                if view.wide and row < rows - 1:
                    axes.tick_params(labelbottom=False)
                    axes.set_xlabel("")
                if place == 0:
                    axes.set_title(folded(caption, widths[0]), color=colour, loc="left" if view.wide else "center")
                if detection:
                    draw_objects(axes, samples.batch.target[sample], samples.scores[sample], samples.classes)
            if several:
                axes = figure.add_subplot(grid[row, (column + 1) * len(widths) - 1])
                draw_bars(axes, samples.scores[sample], samples.batch.target[sample].cpu(), samples.classes)


def draw_bars(axes: Axes, scores: Tensor, target: Tensor, classes: Sequence[str]) -> None:
    """The labels that the sample has and those with the highest scores: has in blue, has not in red where it scores above
    a half, else in grey."""
    order = [k for k in scores.argsort(descending=True).tolist() if target[k]]
    order += [k for k in scores.argsort(descending=True).tolist() if not target[k]][: max(2, BARS - len(order))]
    order.sort(key=lambda k: -scores[k])
    for row, k in enumerate(order):
        score, there = float(scores[k]), bool(target[k])
        colour = RIGHT if there else WRONG if score >= SURE else BAR
        axes.barh(row, score, color=colour, height=0.7)
        inside = score > 0.3
        ink = "white" if inside and colour != BAR else INK
        x, side = (score - 0.02, "right") if inside else (score + 0.02, "left")
        axes.text(x, row, f"{score:.0%}", ha=side, va="center", fontsize=6.5, color=ink)
    marks = [
        "✓" if target[k] and scores[k] >= SURE else "missed" if target[k] else "✗" if scores[k] >= SURE else ""
        for k in order
    ]
    axes.set_yticks(range(len(order)), [f"{mark} {short(classes[k])}" for k, mark in zip(order, marks, strict=True)])
    for label, k in zip(axes.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if target[k] else "normal")
    axes.axvline(SURE, color=QUIET, linewidth=0.6, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.5, -0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines[["bottom"]].set_visible(False)


def draw_objects(axes: Axes, target: dict, found: dict[str, Tensor], classes: Sequence[str]) -> None:
    """Annotated boxes dashed in white, their classes below them; what was found with mask, class and score, in colours."""
    for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        axes.add_patch(rectangle(box, edgecolor="white", linewidth=0.8, linestyle=(0, (2, 2))))
        axes.text(box[2], box[3], short(classes[label]), color="white", fontsize=6, ha="right", va="top", clip_on=True)
    things = zip(*(found[name] for name in ("boxes", "labels", "scores", "masks")), strict=True)
    for number, (box, label, score, mask) in enumerate(things):
        colour = CYCLE[number % len(CYCLE)]
        axes.contourf(mask.numpy(), levels=[0.5, 1.5], colors=[colour], alpha=0.45)
        axes.add_patch(rectangle(box.tolist(), edgecolor=colour, linewidth=1.1))
        x0, y0, *_ = box.tolist()
        above = y0 > 0.06 * len(mask)
        axes.text(
            x0, y0 - 1 if above else y0 + 1, f"{short(classes[label])} {score:.0%}", color="white", fontsize=6,
            va="bottom" if above else "top", bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def rectangle(box: list[float], **style: Any) -> Rectangle:
    """A box x0, y0, x1, y1 in pixels, whose centres imshow puts on whole numbers."""
    x0, y0, x1, y1 = box
    return Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, **style)


def folded(caption: str, width: float) -> str:
    """A caption in two lines where it is wider than a panel of this many inches."""
    return caption if len(caption) < 15 * width else caption.replace(", ", "\n", 1)


def short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
