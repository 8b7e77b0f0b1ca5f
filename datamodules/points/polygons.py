"""Faces with any number of corners as triangles of the same area, concave ones too."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def triangulate(vertices: Tensor, polygons: Iterable[np.ndarray]) -> Tensor:
    """Splits polygons into triangles (T, 3) int64.

    A polygon becomes the fan around its first corner where that covers it. Where the fan would fold over, as on many concave
    faces, ears are cut off one by one (Meisters 1975).

    Args:
        vertices: (V, 3).
        polygons: indices of vertices, (F, corners) for each number of corners.
    """
    points = vertices.double().numpy()
    found = [np.empty((0, 3), np.int64)]
    for same in polygons:
        fans = np.stack([same[:, [0, i, i + 1]] for i in range(1, same.shape[1] - 1)], axis=1)  # (F, corners - 2, 3)
        a, b, c = np.moveaxis(points[fans], 2, 0)
        areas = np.cross(b - a, c - a)
        normals = areas.sum(axis=1)
        folded = (np.einsum("ftd,fd->ft", areas, normals) < 0).any(axis=1)
        found.append(fans[~folded].reshape(-1, 3))
        for polygon, normal in zip(same[folded], normals[folded], strict=True):
            found.append(polygon[ears(points[polygon], normal)])
    return torch.from_numpy(np.concatenate(found))


def ears(corners: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Splits one polygon into triangles (corners - 2, 3) by cutting off ears: convex corners without another corner inside.

    Args:
        corners: (n, 3), in the order in which they lie around the normal.
        normal: (3,).
    """
    axis = int(np.abs(normal).argmax())  # the polygon is seen along this axis, from where it turns left
    kept = [(axis + 1) % 3, (axis + 2) % 3]
    flat = corners[:, kept] * (1 if normal[axis] > 0 else [-1, 1])
    flat = flat / (np.ptp(flat, axis=0).max() or 1)
    left, triangles = list(range(len(flat))), []
    while len(left) > 3:
        candidates = [(left[i - 1], left[i], left[(i + 1) % len(left)]) for i in range(len(left))]
        turns = [turn(*flat[list(candidate)]) for candidate in candidates]
        clear = [i for i, t in enumerate(turns) if t > 0 and not covers_another(flat, candidates[i], left)]
        # the largest ear leaves no slivers; a polygon that crosses itself may have none
        ear = max(clear or range(len(left)), key=lambda i: turns[i])
        if not clear and (level := [i for i, t in enumerate(turns) if t == 0]):
            ear = level[0]  # a corner on a straight side
        triangles.append(candidates[ear])
        del left[ear]
    return np.array([*triangles, left])


def turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the signed area of triangles, positive if they turn left. The points are (..., 2)."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])


def covers_another(flat: np.ndarray, triangle: tuple[int, int, int], left: list[int]) -> bool:
    """Whether a corner lies in the triangle or on its border. A corner at the place of one of the triangle's own does not
    count: a face with a hole passes the ends of its cut twice."""
    a, b, c = flat[list(triangle)]
    others = flat[[i for i in left if i not in triangle]]
    inside = (turn(a, b, others) >= 0) & (turn(b, c, others) >= 0) & (turn(c, a, others) >= 0)
    same = (others[:, None] == flat[list(triangle)]).all(axis=2).any(axis=1)
    return bool((inside & ~same).any())
