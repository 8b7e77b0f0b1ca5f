"""Cross-attention maps over the input, iteration by iteration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .permuted import original_indices, unpermute
from .samples import Samples, wrap_caption
from .style import WIDTH, add_colourbar, label_bottom_row, picture, robust_max
from .views import Image, View

ROWS = 9  # of wide panels in a picture, about
LATENTS = 6  # drawn individually


def relative_attention(backbone: Any, samples: Samples, sample: int) -> dict[str, np.ndarray]:
    """The attention maps of a sample relative to uniform attention, averaged over heads.

    Args:
        backbone: a backbone with `attention_maps`, and `reads` if it has several iterations.
        samples: the samples.
        sample: index of the sample.

    Returns:
        For each modality (I, N, M): iterations, latents and elements in the order of the grid. Over all modalities the mean
        of a latent is 1.
    """
    inputs = {name: array.examples(slice(sample, sample + 1)) for name, array in samples.batch.inputs.items()}
    maps = backbone.attention_maps(inputs, range(getattr(backbone, "reads", 1)))
    elements = sum(array.values.shape[1] for array in inputs.values())
    relative = {}
    for name, array in inputs.items():
        weights = maps[name].mean(dim=2).flatten(3)  # (1, I, N, M)
        relative[name] = unpermute(weights, original_indices(array))[0].cpu().numpy() * elements
    return relative


def select_diverse(maps: np.ndarray, count: int) -> list[int]:
    """Selects `count` latents with diverse maps (N, ...) by farthest-point sampling in L1 distance, starting with the most
    selective one."""
    flat = maps.reshape(len(maps), -1)
    chosen = [int(np.square(flat).sum(axis=1).argmax())]
    nearest = np.full(len(flat), np.inf)
    while len(chosen) < min(count, len(flat)):
        nearest = np.minimum(nearest, np.abs(flat - flat[chosen[-1]]).sum(axis=1))
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def draw_attention(backbone: Any, samples: Samples, folder: Path, title: str) -> list[Path]:
    """Draws two pictures per modality: the mean over latents for some samples, and diverse latents for the first sample.

    Args:
        backbone: a backbone with `attention_maps`.
        samples: the samples.
        folder: where to write the pictures.
        title: first line of the titles.

    Returns:
        The paths of the pictures.
    """
    first = relative_attention(backbone, samples, 0)
    iterations, latents, _ = next(iter(first.values())).shape
    counts = {
        name: min(len(samples), max(1, ROWS // (iterations + (not view.map_shows_sample))) if view.wide else 4)
        for name, view in samples.views.items()
    }
    means = [{name: maps.mean(axis=1) for name, maps in first.items()}]  # keeping all maps would take too much memory
    for sample in range(1, max(counts.values())):
        maps_of_sample = relative_attention(backbone, samples, sample)
        means.append({name: maps.mean(axis=1) for name, maps in maps_of_sample.items()})
    written = []
    elements = sum(view.spec.elements for view in samples.views.values())
    for name, view in samples.views.items():
        share = np.mean([mean[name].mean() for mean in means]) * view.spec.elements / elements
        part = "" if len(samples.views) == 1 else f"; {share:.0%} of all attention"
        averaged, single = folder / f"attention_{name}.png", folder / f"attention_{name}_latents.png"
        heading = f"{title}: attention to {name}\nmean over {latents} latents, by cross-attend{part}"
        draw_means(samples, name, [mean[name] for mean in means[: counts[name]]], averaged, heading)
        heading = f"{title}: attention to {name}\nthe most diverse of {latents} latents, first sample"
        draw_latents(view, first[name], single, heading)
        written += [averaged, single]
    return written


Panel = tuple[str, Callable[[Any], None]]  # title and drawing function


def make_panels(samples: Samples, name: str, sample: int, maps: np.ndarray, vmax: float) -> list[Panel]:
    """The panels of a sample: alone if a map would hide it, as the model sees it if it is permuted, and with its maps
    (I, M)."""
    view = samples.views[name]
    panels: list[Panel] = [] if view.map_shows_sample else [("", partial(view.draw, sample=sample))]
    indices = original_indices(samples.batch.inputs[name])
    if indices is not None and isinstance(view, Image):
        permutation = (indices if indices.dim() == 1 else indices[sample]).cpu().numpy()
        panels.append(("as the model sees it", partial(view.draw_permuted, sample=sample, indices=permutation)))
    for iteration, weights in enumerate(maps, start=1):
        draw = partial(view.draw, sample=sample, weights=on_grid(view, weights), vmax=vmax)
        panels.append((f"cross-attend {iteration}", draw))
    return panels


def draw_means(samples: Samples, name: str, means: list[np.ndarray], path: Path, title: str) -> None:
    """Draws every sample with its maps (I, M): in a row, or stacked if the panels are wide."""
    view = samples.views[name]
    vmax = robust_max(np.stack(means))
    panels = [make_panels(samples, name, sample, maps, vmax) for sample, maps in enumerate(means)]
    rows, columns = len(panels), len(panels[0])
    if view.wide:
        rows, columns = rows * columns, 1
    with picture(path, max(4.6, columns * view.width + 0.6), rows * (view.height + 0.22), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
        for sample, sample_axes in enumerate(axes.reshape(len(panels), -1)):
            caption, colour = samples.caption(sample)
            for panel, (label, draw) in zip(sample_axes, panels[sample], strict=True):
                draw(panel)
                panel.set_title(label, loc="left" if view.wide else "center")
            label = panels[sample][0][0]
            heading = f"{caption}    {label}" if view.wide else f"{wrap_caption(caption, view.width)}\n{label}".rstrip()
            sample_axes[0].set_title(heading, loc="left" if view.wide else "center", color=colour)
        if view.wide:
            label_bottom_row(axes)
        add_colourbar(figure, axes, vmax, "attention (1 = uniform)", view.colours)


def draw_latents(view: View, maps: np.ndarray, path: Path, title: str) -> None:
    """Draws some latents of the maps (I, N, M) of the first sample, one per column; or, if the panels are wide, one per row
    with the first and the last cross-attend."""
    latents = select_diverse(maps.transpose(1, 0, 2), LATENTS)
    iterations = sorted({0, len(maps) - 1}) if view.wide else list(range(len(maps)))
    vmax = robust_max(maps[iterations][:, latents])
    rows, columns = (len(latents), len(iterations)) if view.wide else (len(iterations), len(latents))
    width = min(columns * view.width, 2 * WIDTH) + 0.8
    with picture(path, max(4.6, width), rows * (view.height + 0.22), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
        for row in range(rows):
            for column in range(columns):
                n, i = (row, column) if view.wide else (column, row)
                latent, iteration = latents[n], iterations[i]
                view.draw(axes[row, column], 0, on_grid(view, maps[iteration, latent]), vmax)
                heading = f"latent {latent}, cross-attend {iteration + 1}"
                axes[row, column].set_title(heading, loc="left" if view.wide else "center", fontsize=6.5)
        if view.wide:
            label_bottom_row(axes)
        add_colourbar(figure, axes, vmax, "attention (1 = uniform)", view.colours)


def on_grid(view: View, weights: np.ndarray) -> np.ndarray:
    return weights if view.spec.grid is None else weights.reshape(view.spec.grid)
