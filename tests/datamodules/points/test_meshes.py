"""Meshes: OFF and OBJ files with all their quirks are the shapes they describe; sampled points lie evenly on the surface."""

import pytest
import torch

from datamodules import BadSampleError
from datamodules.points.meshes import cloud_from_bytes, cloud_to_bytes, read_obj, read_off, sample_surface
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
    ],
    ids=["joined header", "counts on the header's line", "comments", "carriage returns", "a coloured face"],
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
