"""What of the input moves a model: gradients of a predicted score, and the reconstructed receptive fields of units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, isqrt, log2, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from datamodules import ByteArray, UserError

from ..backbones import Perceiver
from ..tasks import LinearProbe
from ..tasks.base import Task
from .attention import LATENTS, ROWS, most_different
from .permuted import places_of, put_back
from .samples import Samples, folded
from .style import SHINE, bare, high, label_last, picture, scale
from .views import Image, shine

Inputs = dict[str, ByteArray]


def gradients(samples: Samples, moved: Callable[[Inputs], Tensor]) -> dict[str, np.ndarray]:
    """How far each input value moves a number per example: the length of the gradient over an element's channels, (B, ...)
    on the axes of the compact tensor, or on the grid where a view's modality is not linear in it (text, spectrograms).
    Permuted elements are back in their places.

    moved: from inputs to (B,).
    """
    raw, leaves = dict(samples.compact), {}
    for name, view in samples.views.items():
        if view.from_raw:
            leaves[name] = raw[name] = raw[name].float().requires_grad_()
    inputs: Inputs = dict(samples.data.flatten(raw).inputs)
    for name, view in samples.views.items():
        if not view.from_raw:
            leaves[name] = inputs[name].values.detach().requires_grad_()
            inputs[name] = replace(inputs[name], values=leaves[name])
    found = torch.autograd.grad(moved(inputs).sum(), list(leaves.values()), materialize_grads=True, allow_unused=True)
    lengths = {}
    for (name, view), grad in zip(samples.views.items(), found, strict=True):
        axes = 1 if view.spec.grid is None or not view.from_raw else len(view.spec.grid)
        length = grad.flatten(1 + axes).norm(dim=-1) if grad.dim() > 1 + axes else grad.abs()
        if not view.from_raw:
            length = put_back(length, places_of(inputs[name]))
            length = length if view.spec.grid is None else length.unflatten(1, view.spec.grid)
        lengths[name] = length.detach().cpu().numpy()
    return lengths


def score_of(task: Task, inputs: Inputs) -> Tensor:
    """The score of every example's predicted class, or the sum over its predicted labels, (B,); for detection that of the
    surest object, 0 where there is none; of a probe, which lets no gradient through, the size of its features."""
    if isinstance(task, LinearProbe):
        return task.backbone(inputs).mean(dim=1).square().sum(dim=1)
    out: Any = task(inputs)
    if task.data_spec.task != "detection":
        several = task.data_spec.task == "multi_label"
        return torch.where(several & (out > 0).any(dim=1), out.relu().sum(dim=1), out.amax(dim=1))
    found, _ = task.detect(out)  # pyrefly: ignore
    nothing = out["0"].sum() * 0
    return torch.stack([each["scores"].max() if len(each["scores"]) else nothing for each in found])


def draw_importance(task: Task, samples: Samples, folder: Path, title: str) -> list[Path]:
    """For every modality a picture of some samples with what of them moves the highest score."""
    found = gradients(samples, lambda inputs: score_of(task, inputs))
    what = "the surest object's score" if task.data_spec.task == "detection" else "the predicted score"
    what = "the features" if isinstance(task, LinearProbe) else what
    written = []
    for name, view in samples.views.items():
        path = folder / f"importance_{name}.png"
        moving = [sample for sample, lengths in enumerate(found[name]) if lengths.any()]
        shown = moving[: ROWS // (1 + (not view.covers)) if view.wide else 6]
        if not shown:
            continue
        count = len(shown)
        covers = int(not view.covers)
        rows, columns = ((1 + covers) * count, 1) if view.wide else (1 + covers, count)
        size = max(4.6, columns * view.width + 0.6), rows * (view.height + 0.22)
        with picture(path, *size, f"{title}: what of {name} moves {what}\nlength of its gradient") as figure:
            axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
            for number, sample in enumerate(shown):
                caption, colour = samples.caption(sample)
                panels = axes[(1 + covers) * number :, 0] if view.wide else axes[:, number]
                panels[0].set_title(folded(caption, view.width), color=colour, loc="left" if view.wide else "center")
                if covers:
                    view.draw(panels[0], sample)
                lengths = found[name][sample]  # on a scale of its own: scores of sure samples hardly move
                view.draw(panels[covers], sample, lengths / high(lengths), 1.0)
            if view.wide:
                label_last(axes)
            scale(figure, axes, 1.0, "gradient / the sample's largest", view.colours)
        written.append(path)
    return written


Unit = tuple[Callable[[Inputs], Tensor], tuple[float, float] | None]


def units(task: Task, samples: Samples) -> dict[str, Unit]:
    """Units of a backbone by name: some latents, the unit in the middle of every feature map, or that of the last features.
    Each is a function from inputs to its features (B, D), and the row and column of the input over which it stands."""
    backbone: Any = task.backbone
    inputs = samples.batch.inputs
    (view,) = samples.views.values()
    height, width = view.spec.grid or (1, 1)
    with torch.no_grad():
        features = backbone(inputs)
    if isinstance(backbone, Perceiver):
        chosen = most_different(features.transpose(0, 1).flatten(1).cpu().numpy(), LATENTS)
        return {f"latent {k}": (lambda inputs, k=k: backbone(inputs)[:, k], None) for k in chosen}
    try:
        with torch.no_grad():
            maps = backbone.feature_maps(inputs)
    except (AttributeError, UserError):  # has none
        count = features.shape[1]
        side = isqrt(count)  # with a class token before the grid, or without
        if count == 1:
            return {"features": (lambda inputs: backbone(inputs)[:, 0], None)}
        middle = side // 2
        place = count - side * side + middle * side + middle
        over = (middle + 0.5) * height / side - 0.5, (middle + 0.5) * width / side - 0.5
        return {f"middle of {side}x{side} features": (lambda inputs: backbone(inputs)[:, place], over)}

    def unit(level: int) -> Unit:
        rows, columns = maps[level].shape[2:]
        # convolutions that stride pad the first border, so unit n stands over pixel n times the stride
        over = rows // 2 * 2 ** ceil(log2(height / rows)), columns // 2 * 2 ** ceil(log2(width / columns))
        return lambda inputs: backbone.feature_maps(inputs)[level][:, :, rows // 2, columns // 2], over

    return {f"stage {n + 1}, {found.shape[2]}x{found.shape[3]}": unit(n) for n, found in enumerate(maps)}


def draw_receptive_fields(task: Task, samples: Samples, folder: Path, title: str) -> list[Path]:
    """Backbones on one picture: the effective receptive field (Luo et al. 2016) of some units, the mean over the samples of
    the length of the gradient of their squared features; the box is what the first layer can see by construction."""
    (name, view), *others = samples.views.items()
    if others or not isinstance(view, Image) or view.wide:
        return []
    seen, elements = task.backbone.receptive_field(), view.spec.elements  # pyrefly: ignore
    first = "the first layer sees all" if seen >= elements else f"dashed: the first layer, which sees {seen} of"
    head = f"{title}: reconstructed receptive fields\ngradients, mean over {len(samples)} samples; {first} {elements} pixels"
    path = folder / f"receptive_field_{name}.png"
    found = units(task, samples)
    size = 1.7
    with picture(path, max(5.6, len(found) * size + 0.6), size + 0.35, head) as figure:
        axes = figure.subplots(1, len(found), squeeze=False)
        for place, (unit, (features, over)) in zip(axes[0], found.items(), strict=True):
            lengths = gradients(samples, lambda inputs, f=features: f(inputs).flatten(1).square().sum(dim=1))
            field = lengths[name].mean(axis=0)
            draw_field(place, view, field, isqrt(seen) if seen < elements else None, over)
            place.set_title(f"{unit}\nhalf of it in {half(field)} pixels", fontsize=7)
        scale(figure, axes, 1.0, "gradient / its largest", SHINE)
    return [path]


def draw_field(axes: Any, view: Image, field: np.ndarray, side: int | None, over: tuple[float, float] | None) -> None:
    """side: of the box that is drawn around a place, in pixels."""
    shown = view.lay(field)
    axes.imshow(shine(np.zeros((*shown.shape, 3)), shown, high(field)), interpolation="nearest")
    bare(axes)
    axes.autoscale(False)
    if side is not None and over is not None:
        corner = over[1] - side / 2, over[0] - side / 2
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.9, linestyle=(0, (2, 2)))
        )


def half(field: np.ndarray) -> int:
    """The least number of cells that hold half of the sum."""
    falling = np.sort(field, axis=None)[::-1].cumsum()
    return 1 + int((falling < falling[-1] / 2).sum()) if falling[-1] else prod(field.shape)
