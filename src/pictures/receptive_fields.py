"""Input gradients: saliency maps of a predicted score, and effective receptive fields of units."""

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

from ..tasks.base import Task
from .attention import LATENTS, ROWS, select_diverse
from .permuted import original_indices, unpermute
from .samples import Samples, wrap_caption
from .style import OVERLAY, add_colourbar, hide_axes, label_bottom_row, picture, robust_max
from .views import Image, overlay

Inputs = dict[str, ByteArray]


def gradient_norms(samples: Samples, score: Callable[[Inputs], Tensor]) -> dict[str, np.ndarray]:
    """The norm, over channels, of the gradient of a score with respect to each element of the input.

    Args:
        samples: the samples.
        score: maps the inputs to one number per example, (B,).

    Returns:
        For each modality (B, ...) on the axes of the compact tensor, or on the grid if the byte array is not linear in the
        compact tensor (text, spectrograms). Permuted elements are back in order.
    """
    raw, leaves = dict(samples.compact), {}
    for name, view in samples.views.items():
        if view.raw_gradients:
            leaves[name] = raw[name] = raw[name].float().requires_grad_()
    inputs: Inputs = dict(samples.data.flatten(raw).inputs)
    for name, view in samples.views.items():
        if not view.raw_gradients:
            leaves[name] = inputs[name].values.detach().requires_grad_()
            inputs[name] = replace(inputs[name], values=leaves[name])
    grads = torch.autograd.grad(score(inputs).sum(), list(leaves.values()), materialize_grads=True, allow_unused=True)
    norms = {}
    for (name, view), grad in zip(samples.views.items(), grads, strict=True):
        axes = 1 if view.spec.grid is None or not view.raw_gradients else len(view.spec.grid)
        norm = grad.flatten(1 + axes).norm(dim=-1) if grad.dim() > 1 + axes else grad.abs()
        if not view.raw_gradients:
            norm = unpermute(norm, original_indices(inputs[name]))
            norm = norm if view.spec.grid is None else norm.unflatten(1, view.spec.grid)
        norms[name] = norm.detach().cpu().numpy()
    return norms


def draw_importance(task: Task, samples: Samples, folder: Path, title: str) -> list[Path]:
    """Draws a saliency map of some samples for every modality and returns the paths of the pictures."""
    norms = gradient_norms(samples, task.score_to_explain)
    target = task.explained
    written = []
    for name, view in samples.views.items():
        path = folder / f"importance_{name}.png"
        per_sample = 1 if view.map_shows_sample else 2
        nonzero = [sample for sample, norm in enumerate(norms[name]) if norm.any()]
        selected = nonzero[: ROWS // per_sample if view.wide else 6]
        if not selected:
            continue
        rows, columns = (per_sample * len(selected), 1) if view.wide else (per_sample, len(selected))
        size = max(4.6, columns * view.width + 0.6), rows * (view.height + 0.22)
        with picture(path, *size, f"{title}: importance of {name}\ngradient of the {target}") as figure:
            axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
            for number, sample in enumerate(selected):
                caption, colour = samples.caption(sample)
                panels = axes[per_sample * number :, 0] if view.wide else axes[:, number]
                panels[0].set_title(
                    wrap_caption(caption, view.width), color=colour, loc="left" if view.wide else "center"
                )
                if not view.map_shows_sample:
                    view.draw(panels[0], sample)
                norm = norms[name][sample]  # scaled per sample: confident predictions have small gradients
                view.draw(panels[per_sample - 1], sample, norm / robust_max(norm), 1.0)
            if view.wide:
                label_bottom_row(axes)
            add_colourbar(figure, axes, 1.0, "gradient / largest of the sample", view.colours)
        written.append(path)
    return written


# Maps inputs to the features (B, D) of a unit; the row and column of the input at its centre, if it has one
Unit = tuple[Callable[[Inputs], Tensor], tuple[float, float] | None]


def select_units(task: Task, samples: Samples) -> dict[str, Unit]:
    """Units of a backbone by name: diverse latents if it has attention maps, else the central unit of each feature map, else
    the central unit of its features."""
    backbone: Any = task.backbone
    inputs = samples.batch.inputs
    (view,) = samples.views.values()
    height, width = view.spec.grid or (1, 1)
    with torch.no_grad():
        features = backbone(inputs)
    if hasattr(backbone, "attention_maps"):
        latents = select_diverse(features.transpose(0, 1).flatten(1).cpu().numpy(), LATENTS)
        return {f"latent {k}": (lambda inputs, k=k: backbone(inputs)[:, k], None) for k in latents}
    try:
        with torch.no_grad():
            maps = backbone.feature_maps(inputs)
    except (AttributeError, UserError):  # the backbone has none
        count = features.shape[1]
        side = isqrt(count)  # of the grid, which may follow a class token
        if count == 1:
            return {"features": (lambda inputs: backbone(inputs)[:, 0], None)}
        middle = side // 2
        index = count - side * side + middle * side + middle
        centre = (middle + 0.5) * height / side - 0.5, (middle + 0.5) * width / side - 0.5
        return {f"centre of {side}x{side} features": (lambda inputs: backbone(inputs)[:, index], centre)}

    def unit(level: int) -> Unit:
        rows, columns = maps[level].shape[2:]
        # strided convolutions pad the first border, so unit n is centred on pixel n times the stride
        centre = rows // 2 * 2 ** ceil(log2(height / rows)), columns // 2 * 2 ** ceil(log2(width / columns))
        return lambda inputs: backbone.feature_maps(inputs)[level][:, :, rows // 2, columns // 2], centre

    return {f"stage {n + 1}, {m.shape[2]}x{m.shape[3]}": unit(n) for n, m in enumerate(maps)}


def draw_receptive_fields(task: Task, samples: Samples, folder: Path, title: str) -> list[Path]:
    """Draws the effective receptive fields (Luo et al. 2016) of some units, for backbones on a single image.

    The field is the norm of the gradient of the squared features, averaged over the samples; a dashed box is the receptive
    field of the first layer. Returns the path of the picture, or nothing for other data.
    """
    (name, view), *others = samples.views.items()
    if others or not isinstance(view, Image) or view.wide:
        return []
    first_layer, elements = task.backbone.receptive_field(), view.spec.elements  # pyrefly: ignore
    box = "first layer: all" if first_layer >= elements else f"dashed: first layer, {first_layer} of"
    heading = f"{title}: receptive fields\ngradients, mean over {len(samples)} samples; {box} {elements} pixels"
    path = folder / f"receptive_field_{name}.png"
    units = select_units(task, samples)
    size = 1.7
    with picture(path, max(5.6, len(units) * size + 0.6), size + 0.35, heading) as figure:
        axes = figure.subplots(1, len(units), squeeze=False)
        for panel, (unit, (features, centre)) in zip(axes[0], units.items(), strict=True):
            norms = gradient_norms(samples, lambda inputs, f=features: f(inputs).flatten(1).square().sum(dim=1))
            field = norms[name].mean(axis=0)
            draw_field(panel, view, field, isqrt(first_layer) if first_layer < elements else None, centre)
            panel.set_title(f"{unit}\nhalf of it in {half_area(field)} pixels", fontsize=7)
        add_colourbar(figure, axes, 1.0, "gradient / largest of the unit", OVERLAY)
    return [path]


def draw_field(axes: Any, view: Image, field: np.ndarray, side: int | None, centre: tuple[float, float] | None) -> None:
    """Draws a receptive field, and a dashed box with this side, in pixels, around its centre."""
    weights = view.to_pixels(field)
    axes.imshow(overlay(np.zeros((*weights.shape, 3)), weights, robust_max(field)), interpolation="nearest")
    hide_axes(axes)
    axes.autoscale(False)
    if side is not None and centre is not None:
        corner = centre[1] - side / 2, centre[0] - side / 2
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.9, linestyle=(0, (2, 2)))
        )


def half_area(field: np.ndarray) -> int:
    """The smallest number of cells with half of the sum."""
    falling = np.sort(field, axis=None)[::-1].cumsum()
    return 1 + int((falling < falling[-1] / 2).sum()) if falling[-1] else prod(field.shape)
