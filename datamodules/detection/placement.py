"""How an image and its objects are laid on a canvas of fixed size: resized, padded; in training jittered, cut, flipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .masks import decode_rle, fill_polygons


@dataclass(frozen=True)
class Placement:
    """How an image is laid on the canvas: resized, flipped left to right, and shown from a corner on. All in (rows, columns).

    size: of the original. resized: what it becomes. corner, shown: the part of that which lies on the canvas, top left.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    shown: tuple[int, int]
    flip: bool

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per original pixel."""
        return self.resized[0] / self.size[0], self.resized[1] / self.size[1]

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """The part of an image (*size, 3) uint8 that is shown: (*shown, 3)."""
        image = Image.fromarray(pixels[:, ::-1] if self.flip else pixels)
        (top, left), (height, width), (down, across) = self.corner, self.shown, self.scale
        right, bottom = min((left + width) / across, image.width), min((top + height) / down, image.height)
        part = (left / across, top / down, right, bottom)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=part))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points (k, 2), x and y in the original, on the canvas."""
        x, y = points.T * np.array([[self.scale[1]], [self.scale[0]]])
        if self.flip:
            x = self.resized[1] - x
        return np.stack([x - self.corner[1], y - self.corner[0]], axis=1)

    def box(self, box: Sequence[float]) -> np.ndarray:
        """A box x0, y0, x1, y1 of the original on the canvas, cut to what is shown."""
        corners = self.points(np.reshape(box, (2, 2))).clip(0, self.shown[::-1])
        return np.concatenate([corners.min(axis=0), corners.max(axis=0)])

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the original, as it is shown."""
        row = np.arange(self.shown[0]) + self.corner[0] + 0.5
        column = np.arange(self.shown[1]) + self.corner[1] + 0.5
        if self.flip:
            column = self.resized[1] - column
        return mask[np.ix_((row / self.scale[0]).astype(int), (column / self.scale[1]).astype(int))]


def place(
    size: tuple[int, int], side: int, jitter: float = 1.0, corner: Sequence[float] = (0, 0), flip: bool = False
) -> Placement:
    """Fit an image of size (rows, columns) into side x side pixels with its aspect ratio kept, `jitter` times as large;
    what does not fit is cut off, `corner` (0 to 1, rows and columns) says where."""
    scale = jitter * side / max(size)
    resized = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    shown = min(resized[0], side), min(resized[1], side)
    top, left = (round(c * (r - s)) for c, r, s in zip(corner, resized, shown, strict=True))
    return Placement(size, resized, (top, left), shown, flip)


@dataclass
class Augmentation:
    """Scale jitter, drawn evenly from a range, the part that is shown, and flips."""

    scale_jitter: tuple[float, float]
    flip: bool

    def draw(self, size: tuple[int, int], side: int, generator: torch.Generator) -> Placement:
        jitter, row, column, flip = torch.rand(4, generator=generator).tolist()
        low, high = self.scale_jitter
        return place(size, side, low + jitter * (high - low), (row, column), self.flip and flip < 0.5)


def place_mask(thing: dict, where: Placement) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """An object's mask on the canvas: the window (top, left, height, width) around it and the pixels in it.

    An object without segmentation fills its box.
    """
    segmentation = thing["segmentation"]
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)
        if mask.shape != where.size:
            raise ValueError(f"it is {mask.shape[0]}x{mask.shape[1]}, the image {where.size[0]}x{where.size[1]}")
        mask = where.mask(mask)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return (0, 0, 0, 0), np.zeros((0, 0), bool)
        (top, left), (bottom, right) = (rows[0], columns[0]), (rows[-1] + 1, columns[-1] + 1)
        window = int(top), int(left), int(bottom - top), int(right - left)
        return window, mask[top:bottom, left:right]
    x0, y0, x1, y1 = thing["box"]
    outlines = segmentation or [[x0, y0, x1, y0, x1, y1, x0, y1]]
    polygons = [where.points(np.reshape(np.asarray(outline, float), (-1, 2))) for outline in outlines]
    every = np.concatenate(polygons).clip(0, where.shown[::-1])
    left, top = np.floor(every.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(every.max(axis=0)).astype(int).tolist()
    inside = [polygon - (left, top) for polygon in polygons]
    return (top, left, bottom - top, right - left), fill_polygons(inside, bottom - top, right - left)
