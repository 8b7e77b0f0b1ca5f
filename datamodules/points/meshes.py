"""Triangle meshes: OFF and OBJ files as they come, and points sampled on their surface."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadSampleError


def read_off(content: bytes) -> tuple[Tensor, Tensor]:
    """An OFF file to vertices (V, 3) float64 and triangles (F, 3). Polygons become fans; the counts may stand on the
    header's line, even joined to it; comments, empty lines and colours are passed over.

    Raises BadSampleError where counts and lines do not agree or numbers cannot be read.
    """
    stripped = (line.partition("#")[0].strip() for line in content.decode("ascii", "replace").splitlines())
    lines = [line for line in stripped if line]
    if not lines or not lines[0].startswith("OFF"):
        raise BadSampleError("does not begin with OFF")
    lines[0] = lines[0].removeprefix("OFF").strip()
    if not lines[0]:
        del lines[0]
    try:
        num_vertices, num_faces = map(int, lines[0].split()[:2])
    except (IndexError, ValueError) as error:
        raise BadSampleError("has no line with its numbers of vertices and faces") from error
    if min(num_vertices, num_faces) < 1 or len(lines) - 1 != num_vertices + num_faces:
        raise BadSampleError(
            f"promises {num_vertices} vertices and {num_faces} faces but has {len(lines) - 1} lines of them"
        )
    try:
        vertices = np.loadtxt(lines[1 : num_vertices + 1], usecols=(0, 1, 2), ndmin=2)
        by_size: dict[int, list[str]] = {}
        for line in lines[num_vertices + 1 :]:
            by_size.setdefault(int(line.split(maxsplit=1)[0]), []).append(line)
        # read by size because loadtxt wants columns; a face of 1 or 2 corners has no surface
        polygons = [
            np.loadtxt(same, dtype=np.int64, usecols=range(1, size + 1), ndmin=2)
            for size, same in by_size.items()
            if size > 2
        ]
    except ValueError as error:
        raise BadSampleError(f"has a line that cannot be read ({error})") from error
    return torch.from_numpy(vertices), checked(fans(polygons), num_vertices)


def read_obj(content: bytes) -> tuple[Tensor, Tensor]:
    """The vertices (V, 3) float64 and faces, as triangles (F, 3), of a Wavefront OBJ file; all else in it is passed over.

    Raises BadSampleError where a vertex or face cannot be read.
    """
    vertex_lines: list[str] = []
    by_size: dict[int, list[list[int]]] = {}
    try:
        for line in content.decode("ascii", "replace").splitlines():
            if line.startswith("v "):
                vertex_lines.append(line)
            elif line.startswith("f "):
                corners = [int(word.partition("/")[0]) for word in line.split()[1:]]
                # counted from 1, or backwards from the last vertex so far
                corners = [corner - 1 if corner > 0 else len(vertex_lines) + corner for corner in corners]
                by_size.setdefault(len(corners), []).append(corners)
        vertices = np.loadtxt(vertex_lines, usecols=(1, 2, 3), ndmin=2) if vertex_lines else np.empty((0, 3))
    except ValueError as error:
        raise BadSampleError(f"has a line that cannot be read ({error})") from error
    polygons = [np.array(same) for size, same in by_size.items() if size > 2]
    return torch.from_numpy(vertices), checked(fans(polygons), len(vertices))


def fans(polygons: Iterable[np.ndarray]) -> Tensor:
    """Polygons, (F, corners) for each number of corners, to triangles (T, 3) around their first corners."""
    triangles = [p[:, [0, i, i + 1]] for p in polygons for i in range(1, p.shape[1] - 1)]
    return torch.from_numpy(np.concatenate([np.empty((0, 3), np.int64), *triangles]))


def checked(faces: Tensor, num_vertices: int) -> Tensor:
    if not len(faces):
        raise BadSampleError("has no faces")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= num_vertices:
        raise BadSampleError(f"has a face with vertex {low if low < 0 else high} of {num_vertices}, counted from 0")
    return faces


def sample_surface(vertices: Tensor, faces: Tensor, points: int, seed: int) -> Tensor:
    """Points drawn evenly from a mesh's surface: (points, 3) float32, moved and scaled (alike on all axes) so that the mesh's
    bounding box is centred and its longest side goes from -1 to 1.

    Raises BadSampleError for a mesh without surface.
    """
    from pytorch3d.ops import sample_points_from_meshes
    from pytorch3d.structures import Meshes

    corners = vertices[faces].flatten(0, 1)  # only of vertices that faces use
    if not corners.isfinite().all():
        raise BadSampleError("has a vertex that is not finite")
    low, high = corners.amin(0), corners.amax(0)
    side = (high - low).max()
    # before going to float32: some meshes are small and far from the origin
    corners = ((corners - (low + high) / 2) * (2 / side.clamp(min=torch.finfo(side.dtype).tiny))).float()
    a, b, c = corners.view(-1, 3, 3).unbind(1)
    if not torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() > 0:
        raise BadSampleError("has no surface: all its faces have zero area")
    mesh = Meshes([corners], [torch.arange(len(corners)).view(-1, 3)])
    # pytorch3d draws from torch's global generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sample_points_from_meshes(mesh, points)[0]


def cloud_to_bytes(cloud: Tensor) -> bytes:
    """A cloud (points, 3) as the bytes of an npy file of float32. Half the bits would not do: float16 rounds coordinates by
    up to 2.4e-4, which turns the Fourier feature of frequency 1120 by 0.9 radians."""
    file = io.BytesIO()
    np.save(file, cloud.float().numpy())
    return file.getvalue()


def cloud_from_bytes(content: bytes) -> Tensor:
    """The cloud that `cloud_to_bytes` wrote. Raises BadSampleError for other bytes."""
    try:
        cloud = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise BadSampleError(f"is no npy file ({error})") from error
    if cloud.dtype != np.float32 or cloud.ndim != 2 or cloud.shape[1] != 3:
        raise BadSampleError(f"holds {cloud.dtype} of {cloud.shape}, not float32 points of (points, 3)")
    return torch.from_numpy(cloud)
