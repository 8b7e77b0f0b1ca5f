"""How one sample of a modality is drawn: into one Axes, alone or under a map of weights (attention, gradients).

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

from .style import DOTS, INK, SHADE, SHINE, bare, shares

FRAMES = 8  # of a video that are shown
LETTERS = 64  # bytes of a text in one line
LINES = 16  # of a text that are shown


class View:
    """One modality of a batch.

    raw: (B, ...), as loaders hand it over. values: (B, M, C), of its byte array, in the order of the grid.
    width, height: of a panel in inches; `wide` panels stand under each other, others side by side.
    covers: a map shows its sample as well, so that the sample needs no panel of its own.
    from_raw: gradients can be taken by the compact tensor; if not, by the byte array's values.
    colours: of maps. projection: of its Axes.
    """

    width, height, wide, covers, from_raw = 1.3, 1.3, False, False, True
    colours: LinearSegmentedColormap = SHINE
    projection: str | None = None

    def __init__(self, spec: ModalitySpec, raw: Tensor, values: Tensor) -> None:
        self.spec, self.rate = spec, spec.rate
        self.raw, self.values = raw.detach().cpu().numpy(), values.detach().cpu().numpy()

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        """Draw a sample. weights: for every cell of the grid, or of the compact tensor's axes; `most` has full colour."""
        raise NotImplementedError


class Image(View):
    """Pixels; maps shine on the dimmed grey picture."""

    def picture(self, sample: int) -> np.ndarray:
        """(H, W, 3) in [0, 1]."""
        return as_colours(self.raw[sample])

    def lay(self, weights: np.ndarray) -> np.ndarray:
        """Weights of grid or pixels to (H, W)."""
        return stretch(weights, self.raw.shape[1:3])

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        pixels = self.picture(sample)
        if weights is not None:
            pixels = shine(pixels, self.lay(weights), most)
        axes.imshow(pixels, interpolation="nearest")
        bare(axes)

    def draw_shuffled(self, axes: Axes, sample: int, places: np.ndarray) -> None:
        """The picture whose pixels come from these places, (M,) numbers of pixels, as a model on permuted data gets it."""
        pixels = self.picture(sample)
        axes.imshow(pixels.reshape(-1, 3)[places].reshape(pixels.shape), interpolation="nearest")
        bare(axes)


class Spectrogram(Image):
    """A sound that its modality turns into frames x bands: time runs to the right, low bands are below."""

    width, height, from_raw = 2.4, 1.5, False

    def picture(self, sample: int) -> np.ndarray:
        frames, bands = self.spec.grid or ()
        power = self.values[sample, :, 0].reshape(frames, bands).T[::-1]
        return as_colours(np.ascontiguousarray((power - power.min()) / max(float(np.ptp(power)), 1e-9)))

    def lay(self, weights: np.ndarray) -> np.ndarray:
        return weights.T[::-1]

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        super().draw(axes, sample, weights, most)
        axes.set_aspect("auto")
        axes.set(xlabel="time →", ylabel="mel band →")


class Video(Image):
    """Frames side by side, from first to last."""

    width, height, wide = 6.4, 0.85, True

    @property
    def frames(self) -> np.ndarray:
        length = self.raw.shape[1]
        return np.linspace(0, length - 1, min(FRAMES, length)).round().astype(int)

    def picture(self, sample: int) -> np.ndarray:
        return strip([as_colours(frame) for frame in self.raw[sample, self.frames]], 1.0)

    def lay(self, weights: np.ndarray) -> np.ndarray:
        return strip(list(stretch(weights, self.raw.shape[1:4])[self.frames]), np.nan)

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        super().draw(axes, sample, weights, most)
        side = self.raw.shape[3] + 2
        unit = "" if self.rate is None else " s"
        times = self.frames if self.rate is None else self.frames / self.rate
        axes.set_xticks(
            [side * n + side / 2 - 1 for n in range(len(times))], [f"{t:.3g}{unit}" for t in times], color=INK
        )
        axes.tick_params(length=0, pad=1)


class Series(View):
    """A curve over one axis, such as the samples of a sound; maps are the background."""

    width, height, wide, covers, colours = 3.2, 0.85, True, True, SHADE

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        raw = self.raw[sample].reshape(len(self.raw[sample]), -1)
        sound = self.spec.kind == "audio"
        curve = raw / 2**15 if raw.dtype == np.int16 else raw
        end = len(curve) / self.rate if self.rate else len(curve)
        reach = max(float(np.abs(curve).max()) * 1.08, 1e-3)
        if weights is not None:
            shown = weights.reshape(self.spec.elements, -1).mean(axis=1)
            axes.imshow(
                shown[None], cmap=SHADE, norm=shares(most), extent=(0, end, -reach, reach), aspect="auto", zorder=0
            )
        few = len(curve) < 100
        axes.plot(
            (np.arange(len(curve)) + 0.5) * end / len(curve),
            curve,
            color=INK,
            linewidth=1.0 if few else 0.3,
            marker="o" if few else None,
            markersize=3,
        )
        axes.set(xlim=(0, end), ylim=(-reach, reach), yticks=[] if sound else [-reach, 0, reach])
        axes.set_xlabel("time in s" if self.rate else "sample" if sound else "element", labelpad=1)
        axes.spines["left"].set_visible(not sound)


class Text(View):
    """Bytes as letters in lines; maps are behind them."""

    width, wide, covers, from_raw, colours = 6.6, True, True, False, SHADE

    def __init__(self, spec: ModalitySpec, raw: Tensor, values: Tensor) -> None:
        super().__init__(spec, raw, values)
        longest = max(1, int((self.raw >= 0).sum(axis=1).max()))
        self.lines = min(LINES, -(-longest // LETTERS))
        self.height = 0.25 + 0.16 * self.lines

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        room = self.lines * LETTERS
        text = self.raw[sample][self.raw[sample] >= 0].astype(np.uint8)
        if weights is not None:
            cells = np.zeros(room)
            cells[: min(room, len(weights))] = weights[:room]
            shown = cells.reshape(self.lines, LETTERS)
            axes.imshow(shown, cmap=SHADE, norm=shares(most), aspect="auto", interpolation="nearest")
        for place, letter in letters(text.tobytes()[:room]):
            line, column = divmod(place, LETTERS)
            axes.text(column, line, letter, family="DejaVu Sans Mono", fontsize=6.5, ha="center", va="center")
        axes.set(xlim=(-0.5, LETTERS - 0.5), ylim=(self.lines - 0.5, -0.5))
        bare(axes)


class Points(View):
    """A cloud in space; maps colour the points."""

    width, height, covers, colours, projection = 1.9, 1.7, True, DOTS, "3d"
    upright = 2  # the axis that points up

    def draw(self, axes: Any, sample: int, weights: np.ndarray | None = None, most: float = 1.0) -> None:
        order = [(self.upright + 1) % 3, (self.upright + 2) % 3, self.upright]
        cloud = self.raw[sample].astype(np.float32)[:, order]
        middle = (cloud.max(axis=0) + cloud.min(axis=0)) / 2
        reach = max(float(np.ptp(cloud, axis=0).max()) / 2, 1e-6)
        cloud = (cloud - middle) / reach
        size = min(6.0, 2500 / len(cloud))
        if weights is None:
            # what is near is darker
            depth = cloud @ np.array([0.8, 0.8, 0.3])
            axes.scatter(*cloud.T, c=depth, cmap="Blues", vmin=-2.0, vmax=1.2, s=size, linewidths=0)
        else:
            last = np.argsort(weights)  # what counts is drawn on top
            colours = DOTS(shares(most)(weights[last]))
            axes.scatter(*cloud[last].T, c=colours, s=1.6 * size, linewidths=0, depthshade=False)
        axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
        axes.set_box_aspect((1, 1, 1), zoom=1.2)
        axes.view_init(elev=18, azim=45)
        axes.set_axis_off()


VIEWS: dict[ModalityKind, type[View]] = {
    "image": Image,
    "video": Video,
    "audio": Series,
    "spectrogram": Spectrogram,
    "points": Points,
    "text": Text,
    "series": Series,
}


def make_views(data: ByteArrayDataModule, compact: dict, inputs: dict[str, ByteArray]) -> dict[str, View]:
    """A view of every modality of a batch. inputs: with their elements in the order of the grid."""
    views = {
        name: VIEWS[spec.kind](spec, compact[name], inputs[name].values) for name, spec in data.spec.modalities.items()
    }
    for view in views.values():
        if isinstance(view, Points):
            view.upright = getattr(data, "upright", 2)
    return views


def as_colours(pixels: np.ndarray) -> np.ndarray:
    """Grey or coloured pixels, of bytes or in [0, 1], to (H, W, 3) in [0, 1]."""
    pixels = pixels / 255 if pixels.dtype == np.uint8 else pixels.clip(0, 1)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels


def shine(pixels: np.ndarray, weights: np.ndarray, most: float) -> np.ndarray:
    """A picture (H, W, 3) in dimmed grey with weights (H, W) shining on it; where they are nan it stays."""
    share = np.asarray(shares(most)(np.nan_to_num(weights)))[..., None]
    grey = 0.08 + 0.5 * pixels.mean(axis=2, keepdims=True)
    shone = grey * (1 - share) + SHINE(share[..., 0])[..., :3] * share
    return np.where(np.isnan(weights)[..., None], pixels, shone)


def stretch(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of patches to weights of the cells in them."""
    for axis, length in enumerate(shape):
        weights = np.repeat(weights, length // weights.shape[axis], axis=axis)
    return weights


def strip(frames: list[np.ndarray], gap: float) -> np.ndarray:
    """Frames (H, W, ...) side by side, two pixels between them."""
    between = np.full((frames[0].shape[0], 2, *frames[0].shape[2:]), gap)
    return np.concatenate([part for frame in frames for part in (frame, between)][:-1], axis=1)


def letters(text: bytes) -> list[tuple[int, str]]:
    """The letters of UTF-8, each with the place of its first byte; what is none, and line breaks, as marks."""
    found, place = [], 0
    for letter in text.decode("utf-8", errors="replace"):
        shown = "↵" if letter == "\n" else letter if letter.isprintable() else "·"
        found.append((place, shown))
        place += 1 if letter == "\ufffd" else len(letter.encode())
    return found
