"""Draw one sample of a modality into an Axes, alone or with a map of weights (attention, gradients).

The `kind` of a modality's spec selects its view, so new data sets need nothing here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from datamodules import ByteArray, ByteArrayDataModule, ModalitySpec
from datamodules.core.byte_array import ModalityKind

from .style import BACKGROUND, INK, OVERLAY, POINTS, colour_norm, hide_axes

FRAMES = 8  # shown of a video, at most
LINE_LENGTH = 64  # bytes in a line of text
LINES = 16  # shown of a text, at most


class View:
    """Base class: one modality of a batch.

    Args:
        spec: spec of the modality.
        raw: (B, ...), the compact tensor from the loader.
        values: (B, M, C), the values of its byte array, in the order of the grid.
        rate: frames or samples per second, if known.

    Attributes:
        width: of a panel, in inches.
        height: of a panel, in inches.
        wide: panels are stacked vertically instead of side by side.
        map_shows_sample: the sample is visible under a map, so it needs no panel of its own.
        raw_gradients: gradients are taken with respect to the compact tensor, otherwise to the byte array's values.
        colours: colour map of the weights.
        projection: projection of the Axes.
    """

    width, height, wide, map_shows_sample, raw_gradients = 1.3, 1.3, False, False, True
    colours: LinearSegmentedColormap = OVERLAY
    projection: str | None = None

    def __init__(self, spec: ModalitySpec, raw: Tensor, values: Tensor) -> None:
        self.spec, self.rate = spec, spec.rate
        self.raw, self.values = raw.detach().cpu().numpy(), values.detach().cpu().numpy()

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        """Draws a sample.

        Args:
            axes: where to draw.
            sample: index in the batch.
            weights: one per cell of the grid, or per entry of the compact tensor's axes; None draws the sample alone.
            vmax: the weight at the top of the colour scale.
        """
        raise NotImplementedError


class Image(View):
    """An image; maps are drawn over a dark grey version of it."""

    def pixels(self, sample: int) -> np.ndarray:
        """The sample as (H, W, 3) in [0, 1]."""
        return to_rgb(self.raw[sample])

    def to_pixels(self, weights: np.ndarray) -> np.ndarray:
        """Weights of the grid or the pixels as (H, W)."""
        return upsample(weights, self.raw.shape[1:3])

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        pixels = self.pixels(sample)
        if weights is not None:
            pixels = overlay(pixels, self.to_pixels(weights), vmax)
        axes.imshow(pixels, interpolation="nearest")
        hide_axes(axes)

    def draw_permuted(self, axes: Axes, sample: int, indices: np.ndarray) -> None:
        """Draws the image as the model sees it, with the pixels at `indices` (M,) in order."""
        pixels = self.pixels(sample)
        axes.imshow(pixels.reshape(-1, 3)[indices].reshape(pixels.shape), interpolation="nearest")
        hide_axes(axes)


class Spectrogram(Image):
    """Audio as a spectrogram of frames x bands: time runs to the right, frequency upwards."""

    width, height, raw_gradients = 2.4, 1.5, False

    def pixels(self, sample: int) -> np.ndarray:
        frames, bands = self.spec.grid or ()
        power = self.values[sample, :, 0].reshape(frames, bands).T[::-1]
        return to_rgb(np.ascontiguousarray((power - power.min()) / max(float(np.ptp(power)), 1e-9)))

    def to_pixels(self, weights: np.ndarray) -> np.ndarray:
        return weights.T[::-1]

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        super().draw(axes, sample, weights, vmax)
        axes.set_aspect("auto")
        axes.set(xlabel="time →", ylabel="mel band →")


class Video(Image):
    """A video as frames side by side, from first to last."""

    width, height, wide = 6.4, 0.85, True

    @property
    def frames(self) -> np.ndarray:
        length = self.raw.shape[1]
        return np.linspace(0, length - 1, min(FRAMES, length)).round().astype(int)

    def pixels(self, sample: int) -> np.ndarray:
        return side_by_side([to_rgb(frame) for frame in self.raw[sample, self.frames]], 1.0)

    def to_pixels(self, weights: np.ndarray) -> np.ndarray:
        return side_by_side(list(upsample(weights, self.raw.shape[1:4])[self.frames]), np.nan)

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        super().draw(axes, sample, weights, vmax)
        side = self.raw.shape[3] + 2
        unit = "" if self.rate is None else " s"
        times = self.frames if self.rate is None else self.frames / self.rate
        axes.set_xticks(
            [side * n + side / 2 - 1 for n in range(len(times))], [f"{t:.3g}{unit}" for t in times], color=INK
        )
        axes.tick_params(length=0, pad=1)


class Series(View):
    """A curve over one axis, such as audio samples; maps are drawn as the background."""

    width, height, wide, map_shows_sample, colours = 3.2, 0.85, True, True, BACKGROUND

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        raw = self.raw[sample].reshape(len(self.raw[sample]), -1)
        audio = self.spec.kind == "audio"
        curve = raw / 2**15 if raw.dtype == np.int16 else raw
        end = len(curve) / self.rate if self.rate else len(curve)
        limit = max(float(np.abs(curve).max()) * 1.08, 1e-3)
        if weights is not None:
            row = weights.reshape(self.spec.elements, -1).mean(axis=1)[None]
            extent = (0, end, -limit, limit)
            axes.imshow(row, cmap=BACKGROUND, norm=colour_norm(vmax), extent=extent, aspect="auto", zorder=0)
        few = len(curve) < 100
        axes.plot(
            (np.arange(len(curve)) + 0.5) * end / len(curve),
            curve,
            color=INK,
            linewidth=1.0 if few else 0.3,
            marker="o" if few else None,
            markersize=3,
        )
        axes.set(xlim=(0, end), ylim=(-limit, limit), yticks=[] if audio else [-limit, 0, limit])
        axes.set_xlabel("time in s" if self.rate else "sample" if audio else "element", labelpad=1)
        axes.spines["left"].set_visible(not audio)


class Text(View):
    """Bytes as lines of text; maps are drawn as the background."""

    width, wide, map_shows_sample, raw_gradients, colours = 6.6, True, True, False, BACKGROUND

    def __init__(self, spec: ModalitySpec, raw: Tensor, values: Tensor) -> None:
        super().__init__(spec, raw, values)
        longest = max(1, int((self.raw >= 0).sum(axis=1).max()))
        self.lines = min(LINES, -(-longest // LINE_LENGTH))
        self.height = 0.25 + 0.16 * self.lines

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        capacity = self.lines * LINE_LENGTH
        text = self.raw[sample][self.raw[sample] >= 0].astype(np.uint8)
        if weights is not None:
            cells = np.zeros(capacity)
            cells[: min(capacity, len(weights))] = weights[:capacity]
            lines = cells.reshape(self.lines, LINE_LENGTH)
            axes.imshow(lines, cmap=BACKGROUND, norm=colour_norm(vmax), aspect="auto", interpolation="nearest")
        for offset, character in characters(text.tobytes()[:capacity]):
            line, column = divmod(offset, LINE_LENGTH)
            axes.text(column, line, character, family="DejaVu Sans Mono", fontsize=6.5, ha="center", va="center")
        axes.set(xlim=(-0.5, LINE_LENGTH - 0.5), ylim=(self.lines - 0.5, -0.5))
        hide_axes(axes)


class PointCloud(View):
    """A cloud of points in space; maps colour the points."""

    width, height, map_shows_sample, colours, projection = 1.9, 1.7, True, POINTS, "3d"
    upright = 2  # index of the vertical axis

    def ordered(self, cloud: np.ndarray) -> np.ndarray:
        """The coordinates in the order that the axes have."""
        return cloud[:, [(self.upright + 1) % 3, (self.upright + 2) % 3, self.upright]]

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, vmax: float = 1.0) -> None:
        cloud = self.ordered(self.raw[sample].astype(np.float32))
        middle = (cloud.max(axis=0) + cloud.min(axis=0)) / 2
        radius = max(float(np.ptp(cloud, axis=0).max()) / 2, 1e-6)
        cloud = (cloud - middle) / radius
        size = min(6.0, 2500 / len(cloud))
        if weights is None:
            self.draw_alone(axes, cloud, size)
        else:
            ascending = np.argsort(weights)  # large weights on top
            colours = POINTS(colour_norm(vmax)(weights[ascending]))
            shading = {} if self.projection is None else {"depthshade": False}  # the colours of a map stay as they are
            axes.scatter(*cloud[ascending].T, c=colours, s=1.6 * size, linewidths=0, **shading)
        self.frame(axes)

    def draw_alone(self, axes: Any, cloud: np.ndarray, size: float) -> None:
        """Nearer points are darker."""
        depth = cloud @ np.array([0.8, 0.8, 0.3])
        axes.scatter(*cloud.T, c=depth, cmap="Blues", vmin=-2.0, vmax=1.2, s=size, linewidths=0)

    def frame(self, axes: Any) -> None:
        axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
        axes.set_box_aspect((1, 1, 1), zoom=1.2)
        axes.view_init(elev=18, azim=45)
        axes.set_axis_off()


class Outline(PointCloud):
    """Points in the plane, x to the right and y down as in pictures."""

    projection = None

    def ordered(self, cloud: np.ndarray) -> np.ndarray:
        return cloud

    def draw_alone(self, axes: Any, cloud: np.ndarray, size: float) -> None:
        axes.scatter(*cloud.T, color=INK, s=size, linewidths=0)

    def frame(self, axes: Any) -> None:
        axes.set(xlim=(-1.05, 1.05), ylim=(1.05, -1.05), aspect="equal")
        hide_axes(axes)


VIEWS: dict[ModalityKind, type[View]] = {
    "image": Image,
    "video": Video,
    "audio": Series,
    "spectrogram": Spectrogram,
    "points": PointCloud,
    "text": Text,
    "series": Series,
}


def view_of(spec: ModalitySpec) -> type[View]:
    return Outline if spec.kind == "points" and spec.coordinates == 2 else VIEWS[spec.kind]


def make_views(data: ByteArrayDataModule, compact: dict, inputs: dict[str, ByteArray]) -> dict[str, View]:
    """A view of every modality of a batch. inputs: with their elements in the order of the grid."""
    views = {
        name: view_of(spec)(spec, compact[name], inputs[name].values) for name, spec in data.spec.modalities.items()
    }
    for view in views.values():
        if isinstance(view, PointCloud):
            view.upright = getattr(data, "upright", 2)
    return views


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey or RGB pixels, uint8 or in [0, 1], to (H, W, 3) in [0, 1]."""
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels.clip(0, 1)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels


def overlay(pixels: np.ndarray, weights: np.ndarray, vmax: float) -> np.ndarray:
    """Draws weights (H, W) over an image (H, W, 3) in dark grey. Pixels with NaN weights keep their colour."""
    alpha = np.asarray(colour_norm(vmax)(np.nan_to_num(weights)))[..., None]
    grey = 0.08 + 0.5 * pixels.mean(axis=2, keepdims=True)
    blended = grey * (1 - alpha) + OVERLAY(alpha[..., 0])[..., :3] * alpha
    return np.where(np.isnan(weights)[..., None], pixels, blended)


def upsample(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeats the weights of patches for every cell of the patch."""
    for axis, length in enumerate(shape):
        weights = np.repeat(weights, length // weights.shape[axis], axis=axis)
    return weights


def side_by_side(frames: list[np.ndarray], fill: float) -> np.ndarray:
    """Joins frames (H, W, ...) with a gap of two pixels between them."""
    gap = np.full((frames[0].shape[0], 2, *frames[0].shape[2:]), fill)
    return np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)


def characters(text: bytes) -> list[tuple[int, str]]:
    """The characters of UTF-8 text with the offset of their first byte; symbols stand for what cannot be printed."""
    found, offset = [], 0
    for character in text.decode("utf-8", errors="replace"):
        symbol = "↵" if character == "\n" else character if character.isprintable() else "·"
        found.append((offset, symbol))
        offset += 1 if character == "\ufffd" else len(character.encode())
    return found
