"""Placement of an image and its objects on a canvas of fixed size: resizing, padding and, in training, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .masks import decode_rle, fill_polygons


@dataclass(frozen=True)
class Placement:
    """How an image is placed on the canvas: resized, flipped left to right, and cropped. All sizes are (rows, columns).

    Args:
        size: size of the original image.
        resized: size after resizing.
        corner: top left corner of the crop, in the resized image.
        shown: size of the crop, which is at the top left of the canvas.
        flip: whether the image is flipped left to right.
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
        """The visible part of an image (*size, 3) uint8: (*shown, 3)."""
        image = Image.fromarray(pixels[:, ::-1] if self.flip else pixels)
        (top, left), (height, width), (down, across) = self.corner, self.shown, self.scale
        right, bottom = min((left + width) / across, image.width), min((top + height) / down, image.height)
        part = (left / across, top / down, right, bottom)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=part))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Maps points (k, 2), x and y, from the original to the canvas."""
        x, y = points.T * np.array([[self.scale[1]], [self.scale[0]]])
        if self.flip:
            x = self.resized[1] - x
        return np.stack([x - self.corner[1], y - self.corner[0]], axis=1)

    def box(self, box: Sequence[float]) -> np.ndarray:
        """Maps a box x0, y0, x1, y1 from the original to the canvas, clipped to the visible part."""
        corners = self.points(np.reshape(box, (2, 2))).clip(0, self.shown[::-1])
        return np.concatenate([corners.min(axis=0), corners.max(axis=0)])

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The visible part of a mask of the original."""
        row = np.arange(self.shown[0]) + self.corner[0] + 0.5
        column = np.arange(self.shown[1]) + self.corner[1] + 0.5
        if self.flip:
            column = self.resized[1] - column
        return mask[np.ix_((row / self.scale[0]).astype(int), (column / self.scale[1]).astype(int))]


def fit(
    size: tuple[int, int], side: int, jitter: float = 1.0, corner: Sequence[float] = (0, 0), flip: bool = False
) -> Placement:
    """Fits an image into a square canvas, preserving its aspect ratio.

    Args:
        size: rows and columns of the image.
        side: height and width of the canvas.
        jitter: scales the image relative to fitting exactly.
        corner: relative position of the crop if the image is too large, 0 to 1 for rows and columns.
        flip: whether to flip the image left to right.
    """
    scale = jitter * side / max(size)
    resized = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    shown = min(resized[0], side), min(resized[1], side)
    top, left = (round(c * (r - s)) for c, r, s in zip(corner, resized, shown, strict=True))
    return Placement(size, resized, (top, left), shown, flip)


@dataclass
class Augmentation:
    """Random scale jitter (uniform in a range), crops and flips."""

    scale_jitter: tuple[float, float]
    flip: bool

    def draw(self, size: tuple[int, int], side: int, generator: torch.Generator) -> Placement:
        jitter, row, column, flip = torch.rand(4, generator=generator).tolist()
        low, high = self.scale_jitter
        return fit(size, side, low + jitter * (high - low), (row, column), self.flip and flip < 0.5)


def place_mask(item: dict, placement: Placement) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """The mask of an object on the canvas, as a window (top, left, height, width) and its pixels.

    An object without segmentation fills its box.
    """
    segmentation = item["segmentation"]
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != placement.size:
            (height, width), found = placement.size, segmentation["size"]
            raise ValueError(f"it is {'x'.join(map(str, found))}, the image {height}x{width}")
        mask = placement.mask(decode_rle(segmentation))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return (0, 0, 0, 0), np.zeros((0, 0), bool)
        (top, left), (bottom, right) = (rows[0], columns[0]), (rows[-1] + 1, columns[-1] + 1)
        window = int(top), int(left), int(bottom - top), int(right - left)
        return window, mask[top:bottom, left:right]
    x0, y0, x1, y1 = item["box"]
    outlines = segmentation or [[x0, y0, x1, y0, x1, y1, x0, y1]]
    polygons = [placement.points(np.reshape(np.asarray(outline, float), (-1, 2))) for outline in outlines]
    corners = np.concatenate(polygons).clip(0, placement.shown[::-1])
    left, top = np.floor(corners.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(corners.max(axis=0)).astype(int).tolist()
    inside = [polygon - (left, top) for polygon in polygons]
    return (top, left, bottom - top, right - left), fill_polygons(inside, bottom - top, right - left)
