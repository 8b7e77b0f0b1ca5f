"""Meshes in OFF, OBJ, PLY and STL files, and points sampled from their surface."""

from __future__ import annotations

import io
import re
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor

from ..core.errors import BadSampleError, reason
from .ply import read_ply
from .polygons import triangulate

# With texture coordinates, colours, normals, all of which are ignored; the counts may follow without a space
OFF_HEADER = re.compile(r"(ST|C|N)*OFF")


def read_off(content: bytes) -> tuple[Tensor, Tensor]:
    """Reads vertices (V, 3) float64 and triangles (F, 3) from an OFF file.

    The counts may be on the line of the header, even without a space. Comments, empty lines, colours (also of vertices, in
    a COFF file), normals and texture coordinates are ignored.

    Raises:
        BadSampleError: if the counts do not match the lines, or a number cannot be read.
    """
    stripped = (line.partition("#")[0].strip() for line in content.decode("ascii", "replace").splitlines())
    lines = [line for line in stripped if line]
    header = OFF_HEADER.match(lines[0]) if lines else None
    if header is None:
        raise BadSampleError("does not start with OFF")
    lines[0] = lines[0][header.end() :].strip()
    if lines[0].upper().startswith("BINARY"):
        raise BadSampleError("is a binary OFF file: convert it to text")
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
    return with_triangles(vertices, polygons)


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
    return with_triangles(vertices, polygons)


def read_stl(content: bytes) -> tuple[Tensor, Tensor]:
    """Reads vertices (V, 3) float64 and triangles (F, 3) from an STL file, text or binary. Raises BadSampleError."""
    from trimesh.exchange.stl import load_stl

    try:
        found = load_stl(io.BytesIO(content))
        vertices, faces = np.array(found["vertices"], np.float64), np.array(found["faces"], np.int64)
    except KeyError as error:
        raise BadSampleError("has no faces") from error
    except Exception as error:  # trimesh raises all kinds
        raise BadSampleError(f"cannot be read as STL ({reason(error)})") from error
    return with_triangles(vertices, [faces])


READERS = {".off": read_off, ".obj": read_obj, ".ply": read_ply, ".stl": read_stl}


def read_mesh(name: str, content: bytes) -> tuple[Tensor, Tensor]:
    """Reads vertices (V, 3) float64 and triangles (F, 3) from a file of a kind in READERS, which its name tells.

    Raises:
        BadSampleError: if it cannot be read, or has no faces.
    """
    vertices, faces = READERS[PurePath(name).suffix.lower()](content)
    if not len(faces):
        raise BadSampleError("has no faces")
    return vertices, faces


def with_triangles(vertices: np.ndarray, polygons: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Vertices, and polygons of some numbers of corners as triangles. Raises BadSampleError if there are none or an index is
    out of range."""
    polygons = [same for same in polygons if same.size]
    if not polygons:
        raise BadSampleError("has no faces")
    low, high = min(int(same.min()) for same in polygons), max(int(same.max()) for same in polygons)
    if low < 0 or high >= len(vertices):
        raise BadSampleError(f"has a face with vertex {low if low < 0 else high}, outside of 0 to {len(vertices) - 1}")
    points = torch.from_numpy(vertices)
    return points, triangulate(points, polygons)


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


def cloud_from_bytes(content: bytes, coordinates: int = 3) -> Tensor:
    """Decodes points (points, coordinates) float32 of an npy file. Raises BadSampleError for any other bytes."""
    try:
        cloud = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise BadSampleError(f"is not an npy file ({error})") from error
    if cloud.dtype != np.float32 or cloud.ndim != 2 or cloud.shape[1] != coordinates:
        wanted = f"float32 of shape (points, {coordinates})"
        raise BadSampleError(f"holds {cloud.dtype} of shape {cloud.shape}, expected {wanted}")
    if not np.isfinite(cloud).all():
        raise BadSampleError("has a point that is not finite")
    return torch.from_numpy(cloud)
