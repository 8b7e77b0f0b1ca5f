"""What the latents of a Perceiver look at: their cross-attention over the input, iteration by iteration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from datamodules import ByteArray
from src.backbones import Perceiver
from src.pictures.permuted import places_of, put_back
from src.pictures.samples import Samples, folded
from src.pictures.style import INK, WIDTH, high, label_last, picture, scale
from src.pictures.views import Image, View

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
    attention = [attention_of(backbone, samples, sample) for sample in range(max(counts.values()))]
    for name, view in samples.views.items():
        shares = [found[name].mean() * view.spec.elements for found in attention]
        part = "" if len(samples.views) == 1 else f"; {name} gets {np.mean(shares) / total(samples):.0%} of it"
        paths = folder / f"attention_{name}.png", folder / f"attention_{name}_latents.png"
        means = [found[name].mean(axis=1) for found in attention[: counts[name]]]
        draw_means(
            samples, name, means, paths[0],
            f"{title}: attention to {name}\nmean over {len(backbone.latents)} latents, in every cross-attend{part}",
        )  # fmt: skip
        draw_latents(
            view, attention[0][name], paths[1],
            f"{title}: attention to {name}\nthe most different of {len(backbone.latents)} latents, first sample",
        )  # fmt: skip
        written += paths
    return written


def total(samples: Samples) -> int:
    return sum(view.spec.elements for view in samples.views.values())


def draw_means(samples: Samples, name: str, means: list[np.ndarray], path: Path, title: str) -> None:
    """Every sample with the maps (I, M) of its cross-attends: in a row, or, where panels are wide, under each other."""
    view = samples.views[name]
    most = high(np.stack(means))
    places = places_of(samples.batch.inputs[name]) if isinstance(view, Image) and not view.wide else None
    panels: list[Any] = [] if view.covers else ["sample"]
    panels += ["permuted"] * (places is not None) + list(range(len(means[0])))
    rows, columns = len(means), len(panels)
    if view.wide:
        rows, columns = rows * columns, 1
    with picture(path, max(4.6, columns * view.width + 0.6), rows * (view.height + 0.22), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": view.projection})
        for number, place in enumerate(axes.flat):
            sample, panel = divmod(number, len(panels))
            caption, colour = samples.caption(sample)
            if panels[panel] == "sample":
                view.draw(place, sample)
            elif panels[panel] == "permuted":
                own = places if places is None or places.dim() == 1 else places[sample]
                view.draw_shuffled(place, sample, own.cpu().numpy())
            else:
                view.draw(place, sample, on_grid(view, means[sample][panels[panel]]), most)
            first = panel == 0
            named = {"sample": "", "permuted": "as the model gets it"}
            step = named.get(panels[panel]) if isinstance(panels[panel], str) else f"cross-attend {panels[panel] + 1}"
            if view.wide:
                said = f"{caption}    {step}" if first else step
                place.set_title(said, loc="left", color=colour if first else INK)
            elif first:
                place.set_title(folded(caption, view.width), color=colour)
            else:
                place.set_title(step)
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
