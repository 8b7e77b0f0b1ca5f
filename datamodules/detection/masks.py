"""Object masks in the formats of COCO, run lengths (RLE) and polygons, and as bool arrays."""

from collections.abc import Sequence

import numpy as np


def encode_rle(mask: np.ndarray) -> dict:
    """Encodes a mask (h, w) as uncompressed COCO RLE: run lengths in column-major order, starting with zeros."""
    pixels = np.asarray(mask, bool).T.ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=len(pixels)).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}


def decode_rle(rle: dict) -> np.ndarray:
    """Decodes COCO RLE, uncompressed (a list) or compressed (a string), to a mask (h, w).

    Raises:
        ValueError: if the runs do not fill the mask.
        KeyError: if size or counts are missing.
    """
    (height, width), counts = rle["size"], rle["counts"]
    runs = np.asarray(read_counts(counts) if isinstance(counts, str) else counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"runs of {runs.sum()} pixels in a mask of {height}x{width}")
    return fill_runs(runs).reshape(width, height).T


def read_counts(text: str) -> list[int]:
    """Decodes the run lengths of a compressed COCO string.

    Numbers consist of 5-bit digits, lowest first, in characters from '0' on. Bit 32 means that another digit follows; bit 16
    of the last digit is the sign. From the fourth number on, each is the difference to the number two before it.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode():
        digit = code - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def fill_polygons(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """A mask (height, width) of the pixels whose centres are inside any of the polygons, each (k, 2) corners x, y."""
    mask = np.zeros((height, width), bool)
    centres = np.arange(height) + 0.5
    for start in polygons:
        end = np.roll(start, -1, axis=0)
        # every edge that crosses a row of centres switches between outside and inside
        edge, row = ((start[:, 1:] <= centres) != (end[:, 1:] <= centres)).nonzero()
        (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
        column = np.ceil(x + dx * (centres[row] - y) / dy - 0.5).clip(0, width).astype(int)
        switches = np.sort(row * width + column)
        mask |= fill_runs(np.diff(switches, prepend=0, append=height * width)).reshape(height, width)
    return mask


def fill_runs(runs: np.ndarray) -> np.ndarray:
    """Concatenates alternating runs of False and True, starting with False."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)
