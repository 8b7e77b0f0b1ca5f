"""Triangle meshes in OFF and OBJ files, and points sampled from their surface."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadSampleError


def read_off(content: bytes) -> tuple[Tensor, Tensor]:
    """Reads vertices (V, 3) float64 and triangles (F, 3) from an OFF file.

    Polygons are split into fans. The counts may be on the line of the header, even without a space. Comments, empty lines
    and colours are ignored.

    Raises:
        BadSampleError: if the counts do not match the lines, or a number cannot be read.
    """
    stripped = (line.partition("#")[0].strip() for line in content.decode("ascii", "replace").splitlines())
    lines = [line for line in stripped if line]
    if not lines or not lines[0].startswith("OFF"):
        raise BadSampleError("does not start with OFF")
    lines[0] = lines[0].removeprefix("OFF").strip()
    if not lines[0]:
        del lines[0]
    try:
        num_vertices, num_faces = map(int, lines[0].split()[:2])
    except (IndexError, ValueError) as error:
        raise BadSampleError("has no line with the numbers of vertices and faces") from error
    if min(num_vertices, num_faces) < 1 or len(lines) - 1 != num_vertices + num_faces:
        raise BadSampleError(
            f"declares {num_vertices} vertices and {num_faces} faces but has {len(lines) - 1} lines for them"
        )
    try:
        vertices = np.loadtxt(lines[1 : num_vertices + 1], usecols=(0, 1, 2), ndmin=2)
        by_size: dict[int, list[str]] = {}
        for line in lines[num_vertices + 1 :]:
            by_size.setdefault(int(line.split(maxsplit=1)[0]), []).append(line)
        # read by size because loadtxt needs columns; a face with 1 or 2 corners has no surface
        polygons = [
            np.loadtxt(same, dtype=np.int64, usecols=range(1, size + 1), ndmin=2)
            for size, same in by_size.items()
            if size > 2
        ]
    except ValueError as error:
        raise BadSampleError(f"has a line that cannot be read ({error})") from error
    return torch.from_numpy(vertices), check_faces(fans(polygons), num_vertices)


def read_obj(content: bytes) -> tuple[Tensor, Tensor]:
    """Reads vertices (V, 3) float64 and triangles (F, 3) from a Wavefront OBJ file. Everything else in it is ignored.

    Raises:
        BadSampleError: if a vertex or face cannot be read.
    """
    vertex_lines: list[str] = []
    by_size: dict[int, list[list[int]]] = {}
    try:
        for line in content.decode("ascii", "replace").splitlines():
            if line.startswith("v "):
                vertex_lines.append(line)
            elif line.startswith("f "):
                corners = [int(word.partition("/")[0]) for word in line.split()[1:]]
                # indices start at 1, or count backwards from the last vertex so far
                corners = [corner - 1 if corner > 0 else len(vertex_lines) + corner for corner in corners]
                by_size.setdefault(len(corners), []).append(corners)
        vertices = np.loadtxt(vertex_lines, usecols=(1, 2, 3), ndmin=2) if vertex_lines else np.empty((0, 3))
    except ValueError as error:
        raise BadSampleError(f"has a line that cannot be read ({error})") from error
    polygons = [np.array(same) for size, same in by_size.items() if size > 2]
    return torch.from_numpy(vertices), check_faces(fans(polygons), len(vertices))


def fans(polygons: Iterable[np.ndarray]) -> Tensor:
    """Splits polygons, (F, corners) for each number of corners, into triangles (T, 3) around their first corners."""
    triangles = [p[:, [0, i, i + 1]] for p in polygons for i in range(1, p.shape[1] - 1)]
    return torch.from_numpy(np.concatenate([np.empty((0, 3), np.int64), *triangles]))


def check_faces(faces: Tensor, num_vertices: int) -> Tensor:
    """Returns the faces. Raises BadSampleError if there are none or an index is out of range."""
    if not len(faces):
        raise BadSampleError("has no faces")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= num_vertices:
        raise BadSampleError(f"has a face with vertex {low if low < 0 else high}, outside of 0 to {num_vertices - 1}")
    return faces


def sample_surface(vertices: Tensor, faces: Tensor, points: int, seed: int) -> Tensor:
    """Samples points uniformly from the surface of a mesh: (points, 3) float32.

    The mesh is shifted and scaled (uniformly on all axes) so that its bounding box is centred and the longest side of the box
    extends from -1 to 1.

    Raises:
        BadSampleError: if the mesh has no surface.
    """
    from pytorch3d.ops import sample_points_from_meshes
    from pytorch3d.structures import Meshes

    corners = vertices[faces].flatten(0, 1)  # only vertices that faces use
    if not corners.isfinite().all():
        raise BadSampleError("has a vertex that is not finite")
    low, high = corners.amin(0), corners.amax(0)
    side = (high - low).max()
    # before conversion to float32, since some meshes are small and far from the origin
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
    """Encodes a cloud (points, 3) as an npy file of float32.

    float16 is too coarse: it rounds coordinates by up to 2.4e-4, which shifts the Fourier feature of frequency 1120 by 0.9
    radians.
    """
    file = io.BytesIO()
    np.save(file, cloud.float().numpy())
    return file.getvalue()


def cloud_from_bytes(content: bytes) -> Tensor:
    """Decodes the output of `cloud_to_bytes`. Raises BadSampleError for any other bytes."""
    try:
        cloud = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise BadSampleError(f"is not an npy file ({error})") from error
    if cloud.dtype != np.float32 or cloud.ndim != 2 or cloud.shape[1] != 3:
        raise BadSampleError(f"holds {cloud.dtype} of shape {cloud.shape}, expected float32 of shape (points, 3)")
    if not np.isfinite(cloud).all():
        raise BadSampleError("has a point that is not finite")
    return torch.from_numpy(cloud)
