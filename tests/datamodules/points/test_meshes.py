"""Meshes: OFF and OBJ files with all their quirks are the shapes they describe; sampled points lie evenly on the surface."""

import struct

import numpy as np
import pytest
import torch
import trimesh
from scipy.stats import ks_2samp

from datamodules import BadSampleError
from datamodules.points.meshes import cloud_from_bytes, cloud_to_bytes, read_mesh, read_obj, read_off, sample_surface
from datamodules.points.ply import read_ply
from datamodules.points.polygons import triangulate
from tests.support.meshes import TETRAHEDRON

CUBE_VERTICES = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n0 0 1\n1 0 1\n1 1 1\n0 1 1\n"
CUBE_QUADS = "4 0 1 2 3\n4 4 5 6 7\n4 0 1 5 4\n4 2 3 7 6\n4 0 3 7 4\n4 1 2 6 5\n"
CUBE = f"OFF\n8 6 0\n{CUBE_VERTICES}{CUBE_QUADS}"


def area(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1).sum().item() / 2


def cube() -> tuple[torch.Tensor, torch.Tensor]:
    return read_off(CUBE.encode())


def test_quads_become_two_triangles_each_that_cover_them():
    vertices, faces = cube()
    assert (vertices.shape, vertices.dtype, faces.shape) == ((8, 3), torch.float64, (12, 3))
    assert area(vertices, faces) == pytest.approx(6)


@pytest.mark.parametrize(
    "text",
    [
        TETRAHEDRON.replace("OFF\n", "OFF"),  # "OFF4 4 6", as in some files of ModelNet40
        TETRAHEDRON.replace("OFF\n", "OFF "),
        TETRAHEDRON.replace("OFF\n", "# made by hand\n\nOFF # a comment\n# another\n").replace(
            "\n3 0 1 2", "\n\n3 0 1 2 # base"
        ),
        TETRAHEDRON.replace("\n", "\r\n"),
        TETRAHEDRON.replace("3 0 1 2\n", "3 0 1 2 255 0 0\n"),
        TETRAHEDRON.replace("OFF", "COFF").replace("0 0 1\n", "0 0 1 255 128 0 255\n"),
        TETRAHEDRON.replace("OFF\n", "NCOFF "),
    ],
    ids=["joined header", "counts on its line", "comments", "carriage returns", "a coloured face", "COFF", "NCOFF"],
)
def test_an_off_file_is_read_however_it_is_laid_out(text):
    vertices, faces = read_off(text.encode())
    plain_vertices, plain_faces = read_off(TETRAHEDRON.encode())
    assert torch.equal(vertices, plain_vertices)
    assert sorted(faces.tolist()) == sorted(plain_faces.tolist())


def test_faces_of_different_sizes_stand_side_by_side():
    house = f"OFF\n9 8 0\n{CUBE_VERTICES}0.5 0.5 2\n4 0 1 2 3\n3 4 5 8\n3 5 6 8\n3 6 7 8\n3 7 4 8\n2 0 1\n5 0 1 5 8 4\n1 3\n"
    _, faces = read_off(house.encode())
    assert len(faces) == 2 + 4 + 3  # faces of one or two corners are none
    assert int(faces.max()) == 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not start with OFF"),
        ("PLY\n", "does not start with OFF"),
        ("OFF\n", "no line with the numbers"),
        (TETRAHEDRON.replace("4 4 6", "5 4 6"), "declares 5 vertices and 4 faces but has 8 lines"),
        (TETRAHEDRON[:-10], "declares 4 vertices and 4 faces but has 7 lines"),
        (TETRAHEDRON.replace("3 1 2 3", "3 1 2 4"), "vertex 4, outside of 0 to 3"),
        (TETRAHEDRON.replace("3 1 2 3", "3 1 2 -1"), "vertex -1, outside of 0 to 3"),
        (TETRAHEDRON.replace("3 1 2 3", "3 1 2"), "cannot be read"),
        (TETRAHEDRON.replace("1 0 0\n", "1 zero 0\n"), "cannot be read"),
    ],
)
def test_a_broken_off_file_is_a_bad_sample_with_its_reason(text, reason):
    with pytest.raises(BadSampleError, match=reason):
        read_off(text.encode())


def test_obj_counts_vertices_from_one_and_backwards():
    quad = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvn 0 0 1\nusemtl\nf 1/1/1 2//1 3 4\nf -4 -3 -2 -1\nv 9 9 9\n# f 7 7 7\n"
    vertices, faces = read_obj(quad.encode() + "# \u00c5ngstr\u00f6m f 1 2 3\n".encode())
    assert vertices.shape == (5, 3)
    assert sorted(faces.tolist()) == 2 * [[0, 1, 2]] + 2 * [[0, 2, 3]]
    assert area(vertices, faces) == pytest.approx(2)


@pytest.mark.parametrize("text", ["v 0 0\n", "v 0 0 0\nf 1 x 1\n", "v 0 0 0\nf 1 2 3\n", "v 0 0 0\n"])
def test_a_broken_obj_file_is_a_bad_sample(text):
    with pytest.raises(BadSampleError):
        read_obj(text.encode())


def test_sampled_points_lie_on_the_surface_and_fill_it_evenly():
    points = sample_surface(*cube(), points=12_000, seed=1)
    assert (points.shape, points.dtype) == ((12_000, 3), torch.float32)
    assert points.abs().amax(1).sub(1).abs().max() < 1e-6  # every point is on one of the six sides
    axis = points.abs().argmax(1)
    side = 2 * axis + (points.gather(1, axis[:, None])[:, 0] > 0)
    counts = torch.bincount(side, minlength=24).float()
    # chi squared with 5 degrees of freedom passes 20.5 once in a thousand times
    assert ((counts[:6] - 2000) ** 2 / 2000).sum() < 20.5
    # and within a side, over its four quarters
    top = points[side == 5][:, :2] > 0
    quarters = torch.bincount(2 * top[:, 0] + top[:, 1], minlength=4).float()
    assert ((quarters - len(top) / 4) ** 2 / (len(top) / 4)).sum() < 16.3


def test_faces_of_zero_area_get_no_points():
    vertices, faces = cube()
    needle = torch.tensor([[0, 6, 6], [0, 0, 0]]).repeat(500, 1)  # a diagonal through the cube
    points = sample_surface(vertices, torch.cat([faces, needle]), points=2000, seed=1)
    assert points.abs().amax(1).sub(1).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            TETRAHEDRON.replace("3 1 2 3", "3 1 2 2").replace("3 0 1 2\n3 0 1 3\n3 0 2 3", "3 0 0 1\n3 1 1 2\n3 2 2 0"),
            "zero area",
        ),
        ("OFF\n3 1 0\n5 5 5\n5 5 5\n5 5 5\n3 0 1 2\n", "zero area"),
        (TETRAHEDRON.replace("1 0 0\n", "nan 0 0\n"), "not finite"),
    ],
)
def test_a_mesh_without_surface_is_a_bad_sample(text, reason):
    with pytest.raises(BadSampleError, match=reason):
        sample_surface(*read_off(text.encode()), points=10, seed=0)


def test_the_seed_alone_decides_the_points_and_the_global_generator_stays():
    first = sample_surface(*cube(), points=50, seed=3)
    torch.manual_seed(99)
    expected = torch.rand(1)
    torch.manual_seed(99)
    again, other = sample_surface(*cube(), points=50, seed=3), sample_surface(*cube(), points=50, seed=4)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_size_place_and_unused_vertices_do_not_matter():
    vertices, faces = cube()
    plain = sample_surface(vertices, faces, points=100, seed=0)
    far = torch.cat([vertices * 1e-3 + 5e4, torch.tensor([[1e9, 0, 0], [torch.nan, 0, 0]])])
    torch.testing.assert_close(sample_surface(far, faces, points=100, seed=0), plain, atol=1e-6, rtol=0)


def test_clouds_come_back_from_bytes_and_other_bytes_are_refused():
    cloud = torch.rand(7, 3)
    assert torch.equal(cloud_from_bytes(cloud_to_bytes(cloud)), cloud)
    for broken in (
        b"",
        cloud_to_bytes(cloud)[:100],
        cloud_to_bytes(cloud)[:-5],
        cloud_to_bytes(cloud[:, :2]),
        b"PK\x03\x04",
    ):
        with pytest.raises(BadSampleError):
            cloud_from_bytes(broken)


L_SHAPE = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]  # area 5; a fan around the third corner has 9
ARROW = [(0, 0), (2, -1), (0.5, 0), (2, 1)]
HOLE = [
    (0, 0),
    (4, 0),
    (4, 4),
    (0, 4),
    (0, 0),
    (1, 1),
    (1, 3),
    (3, 3),
    (3, 1),
    (1, 1),
]  # a cut leads to the hole and back
STAR = [(np.cos(a) * r, np.sin(a) * r) for a, r in zip(np.arange(10) * np.pi / 5, [3, 1] * 5, strict=True)]


@pytest.mark.parametrize("shape", [L_SHAPE, ARROW, HOLE, STAR], ids=["L", "arrow", "hole", "star"])
@pytest.mark.parametrize("tilt", range(4))
def test_a_concave_face_has_the_polygons_area_from_any_first_corner_in_any_plane(shape, tilt):
    flat = np.array([(*corner, 0.0) for corner in shape])
    turned = np.linalg.qr(np.random.default_rng(tilt).normal(size=(3, 3)))[0]
    x, y = flat[:, 0], flat[:, 1]
    wanted = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    vertices = torch.from_numpy(flat @ turned)
    for first in range(len(shape)):
        for order in (np.roll(np.arange(len(shape)), first), np.roll(np.arange(len(shape)), first)[::-1]):
            triangles = triangulate(vertices, [order[None]])
            assert len(triangles) == len(shape) - 2
            assert area(vertices, triangles) == pytest.approx(wanted)


def test_random_concave_polygons_have_their_area():
    random = np.random.default_rng(0)
    for corners in range(4, 24):
        angles = np.sort(random.uniform(0, 2 * np.pi, corners))
        if np.diff(angles, append=angles[0] + 2 * np.pi).max() > np.pi:
            continue  # the centre is outside
        radii = random.uniform(0.1, 1, corners)
        x, y = radii * np.cos(angles), radii * np.sin(angles)
        vertices = torch.from_numpy(np.stack([x, y, 0.3 * x - y], axis=1))
        a, b = vertices.numpy(), np.roll(vertices.numpy(), -1, axis=0)
        wanted = np.linalg.norm(np.cross(a, b).sum(axis=0)) / 2
        assert area(vertices, triangulate(vertices, [np.arange(corners)[None]])) == pytest.approx(wanted)


HOUSE_CORNERS = [(0, 0, 0), (2, 0, 0), (2, 2, 0), (0, 2, 0), (0.5, 1, 0)]
HOUSE_FACES = [(0, 1, 2, 3, 4), (0, 1, 2)]  # concave, and of another number of corners


def house_in_ply(format_: str) -> bytes:
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[format_]
    head = (
        f"ply\nformat {format_} 1.0\ncomment made by hand\nelement vertex 5\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nelement face 2\nproperty list uchar int vertex_indices\n"
        "property uchar flags\nend_header\n"
    )
    if not order:
        rows = [*(f"{x} {y} {z} 255" for x, y, z in HOUSE_CORNERS)]
        rows += [f"{len(face)} {' '.join(map(str, face))} 7" for face in HOUSE_FACES]
        return (head + "\n".join(rows)).encode()
    body = b"".join(struct.pack(f"{order}3fB", *corner, 255) for corner in HOUSE_CORNERS)
    body += b"".join(struct.pack(f"{order}B{len(face)}iB", len(face), *face, 7) for face in HOUSE_FACES)
    return head.encode() + body


@pytest.mark.parametrize("format_", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_a_ply_file_is_read_whatever_its_format(format_):
    vertices, faces = read_mesh("house.PLY", house_in_ply(format_))
    assert vertices.tolist() == [list(corner) for corner in HOUSE_CORNERS]
    assert len(faces) == 4
    assert area(vertices, faces) == pytest.approx(3.5 + 2)


def test_a_ply_file_without_faces_is_a_cloud():
    head = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty double x\nproperty double y\nproperty double z\nend_header\n"
    vertices, faces = read_ply(head + b"0 1 2\n3 4 5\n")
    assert vertices.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert faces.shape == (0, 3)


@pytest.mark.parametrize("cut", [5, 60, -1, -5, -30])
@pytest.mark.parametrize("format_", ["ascii", "binary_little_endian"])
def test_a_ply_file_that_is_cut_short_is_a_bad_sample(format_, cut):
    content = house_in_ply(format_)[: cut - 1 if format_ == "ascii" and cut < 0 else cut]
    with pytest.raises(BadSampleError):
        read_mesh("house.ply", content)


@pytest.mark.parametrize("kind", ["stl", "stl_ascii"])
def test_an_stl_file_is_read_as_text_and_binary(kind):
    plain_vertices, plain_faces = cube()
    content = trimesh.Trimesh(plain_vertices.numpy(), plain_faces.numpy()).export(file_type=kind)
    vertices, faces = read_mesh("cube.stl", content if isinstance(content, bytes) else content.encode())
    assert len(faces) == 12
    assert area(vertices, faces) == pytest.approx(6)


@pytest.mark.parametrize("content", [b"", b"solid nothing\nendsolid nothing\n", b"\0" * 84, b"\0" * 80 + b"\7\0\0\0"])
def test_an_stl_file_without_a_face_is_a_bad_sample(content):
    with pytest.raises(BadSampleError):
        read_mesh("empty.stl", content)


def test_points_are_spread_as_trimeshs_independent_sampling_spreads_them():
    """Faces of very different areas; every coordinate and the distance from the centre have one distribution."""
    corners = np.array([(-1, -1, -0.2), (1, -1, -0.1), (-1, 1, -0.2), (0.9, 0.9, 0.7), (-0.97, -0.9, 0.9)])
    faces = np.array([(0, 1, 2), (1, 3, 2), (0, 4, 1), (0, 2, 4)])
    ours = sample_surface(torch.from_numpy(corners), torch.from_numpy(faces), points=6000, seed=3).double().numpy()
    middle = (corners.max(axis=0) + corners.min(axis=0)) / 2
    theirs = trimesh.sample.sample_surface(trimesh.Trimesh(corners, faces, process=False), 6000, seed=3)[0] - middle
    for a, b in [*zip(ours.T, theirs.T, strict=True), (np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1))]:
        assert ks_2samp(a, b).pvalue > 0.001
