"""What the latents of a Perceiver look at: their cross-attention over the input, iteration by iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules import ByteArray

from ..backbones import Perceiver
from .permuted import places_of, put_back
from .samples import Samples, folded
from .style import WIDTH, high, label_last, picture, scale
from .views import Image, View

ROWS = 9  # of panels that stand under each other, about
LATENTS = 6  # that are shown alone


def attention_of(backbone: Perceiver, samples: Samples, sample: int) -> dict[str, np.ndarray]:
    """A sample's attention over the cells of each modality's grid, in the grid's order, averaged over heads: (I, N, M),
    in shares of what uniform attention to all elements would be. Over all modalities a latent's mean is 1."""
    inputs = {name: one(array, sample) for name, array in samples.batch.inputs.items()}
    maps = backbone.attention_maps(inputs, range(backbone.reads))
    elements = sum(array.values.shape[1] for array in inputs.values())
    found = {}
    for name, array in inputs.items():
        weights = maps[name].mean(dim=2).flatten(3)  # (1, I, N, M)
        found[name] = put_back(weights, places_of(array))[0].cpu().numpy() * elements
    return found


def one(array: ByteArray, sample: int) -> ByteArray:
    """A byte array of one example."""
    rows = slice(sample, sample + 1)
    own = array.positions.dim() == 3
    return replace(
        array,
        values=array.values[rows],
        positions=array.positions[rows] if own else array.positions,
        mask=None if array.mask is None else array.mask[rows],
    )


def most_different(maps: np.ndarray, count: int) -> list[int]:
    """Latents whose maps (N, ...) differ most: first the most selective one, then always the one whose nearest chosen
    latent is farthest, by the sum of absolute differences."""
    flat = maps.reshape(len(maps), -1)
    chosen = [int(np.square(flat).sum(axis=1).argmax())]
    nearest = np.full(len(flat), np.inf)
    while len(chosen) < min(count, len(flat)):
        nearest = np.minimum(nearest, np.abs(flat - flat[chosen[-1]]).sum(axis=1))
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def draw_attention(backbone: Perceiver, samples: Samples, folder: Path, title: str) -> list[Path]:
    """For every modality two pictures: attention averaged over latents for some samples, and the most different latents on
    the first sample. Returns their paths."""
    steps, written = backbone.reads, []
    counts = {
        name: min(len(samples), max(1, ROWS // (steps + (not view.covers))) if view.wide else 4)
        for name, view in samples.views.items()
    }
    first = attention_of(backbone, samples, 0)
    means = [{name: maps.mean(axis=1) for name, maps in first.items()}]  # of the others all maps would take much memory
    for sample in range(1, max(counts.values())):
        found = attention_of(backbone, samples, sample)
        means.append({name: maps.mean(axis=1) for name, maps in found.items()})
    elements = sum(view.spec.elements for view in samples.views.values())
    for name, view in samples.views.items():
        share = np.mean([found[name].mean() for found in means]) * view.spec.elements / elements
        part = "" if len(samples.views) == 1 else f"; {name} gets {share:.0%} of it"
        latents = len(backbone.latents)
        averaged, single = folder / f"attention_{name}.png", folder / f"attention_{name}_latents.png"
        head = f"{title}: attention to {name}\nmean over {latents} latents, in every cross-attend{part}"
        draw_means(samples, name, [found[name] for found in means[: counts[name]]], averaged, head)
        head = f"{title}: attention to {name}\nthe most different of {latents} latents, first sample"
        draw_latents(view, first[name], single, head)
        written += [averaged, single]
    return written


Panel = tuple[str, Callable[[Any], None]]  # its title, and what draws it


def panels_of(samples: Samples, name: str, sample: int, maps: np.ndarray, most: float) -> list[Panel]:
    """A sample as it is, where a map would hide it, as the model gets it, where it is permuted, and under the maps (I, M)."""
    view = samples.views[name]
    panels: list[Panel] = [] if view.covers else [("", partial(view.draw, sample=sample))]
    places = places_of(samples.batch.inputs[name])
    if places is not None and isinstance(view, Image):
        own = (places if places.dim() == 1 else places[sample]).cpu().numpy()
        panels.append(("as the model gets it", partial(view.draw_shuffled, sample=sample, places=own)))
    for step, weights in enumerate(maps, start=1):
        drawn = partial(view.draw, sample=sample, weights=on_grid(view, weights), most=most)
        panels.append((f"cross-attend {step}", drawn))
    return panels


def draw_means(samples: Samples, name: str, means: list[np.ndarray], path: Path, title: str) -> None:
    """Every sample with the maps (I, M) of its cross-attends: in a row, or, where panels are wide, under each other."""
    view = samples.views[name]
    most = high(np.stack(means))
    panels = [panels_of(samples, name, sample, maps, most) for sample, maps in enumerate(means)]
    rows, columns = len(panels), len(panels[0])
    if view.wide:
        rows, columns = rows * columns, 1
    with picture(path, max(4.6, columns * view.width + 0.6), rows * (view.height + 0.22), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
        for sample, of_sample in enumerate(axes.reshape(len(panels), -1)):
            caption, colour = samples.caption(sample)
            for place, (step, draw) in zip(of_sample, panels[sample], strict=True):
                draw(place)
                place.set_title(step, loc="left" if view.wide else "center")
            step = panels[sample][0][0]
            said = f"{caption}    {step}" if view.wide else f"{folded(caption, view.width)}\n{step}".rstrip()
            of_sample[0].set_title(said, loc="left" if view.wide else "center", color=colour)
        if view.wide:
            label_last(axes)
        scale(figure, axes, most, "attention (1 = uniform)", view.colours)


def draw_latents(view: View, maps: np.ndarray, path: Path, title: str) -> None:
    """Some latents of the maps (I, N, M) of the first sample, a column for each of them; or, where panels are wide, a row
    for each and a column for the first and the last cross-attend."""
    chosen = most_different(maps.transpose(1, 0, 2), LATENTS)
    steps = list(range(len(maps)))
    if view.wide:
        steps = sorted({0, len(maps) - 1})
    most = high(maps[steps][:, chosen])
    rows, columns = (len(chosen), len(steps)) if view.wide else (len(steps), len(chosen))
    width = min(columns * view.width, 2 * WIDTH) + 0.8
    with picture(path, max(4.6, width), rows * (view.height + 0.22), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
        for row in range(rows):
            for column in range(columns):
                latent, step = (row, column) if view.wide else (column, row)
                view.draw(axes[row, column], 0, on_grid(view, maps[steps[step], chosen[latent]]), most)
                axes[row, column].set_title(
                    f"latent {chosen[latent]}, cross-attend {steps[step] + 1}", loc="left" if view.wide else "center",
                    fontsize=6.5,
                )  # fmt: skip
        if view.wide:
            label_last(axes)
        scale(figure, axes, most, "attention (1 = uniform)", view.colours)


def on_grid(view: View, weights: np.ndarray) -> np.ndarray:
    return weights if view.spec.grid is None else weights.reshape(view.spec.grid)
