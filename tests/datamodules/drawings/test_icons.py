"""Icons: a package of the form of @iconify/json, its three encodings, and splits by icon set."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Icons, UserError
from datamodules.core.errors import BadSampleError
from datamodules.drawings.concepts import CONCEPTS
from datamodules.drawings.prepare_icons import split_of
from datamodules.drawings.rendering import outline, path_bytes, render, svg
from datamodules.prepare import main as prepare
from datamodules.storage import lint
from tests.support.icons import CIRCLE, SQUARE, write_package


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("icons")
    source = write_package(place / "package.tgz")
    assert prepare(["icons", "--source", str(source), "--out", str(place / "data"), "--workers", "1"]) == 0
    return place / "data"


def test_all_encodings_of_an_icon_come_together(folder):
    data = Icons(str(folder), encodings=["pixels", "outline", "path"], batch_size=4, points=64, path_bytes=20)
    batch = data.flatten(next(iter(data.loader("train"))))
    assert batch.inputs["pixels"].values.shape == (4, 256, 12)
    assert batch.inputs["outline"].values.shape == (4, 64, 2)
    assert batch.inputs["path"].values.shape == (4, 20, 256)
    for key, target in zip(batch.keys, batch.target.tolist(), strict=True):
        assert CONCEPTS[target] == key.partition("/")[2]
    row = [key.partition("/")[2] for key in batch.keys].index("square")
    text = bytes(batch.inputs["path"].values[row].argmax(dim=1).tolist())
    assert text[:11] == b"M4 4h8v8H4z"
    assert batch.inputs["path"].mask is not None
    assert batch.inputs["path"].mask[row].sum() == 11
    sides = batch.inputs["outline"].values[row].abs().amax(dim=1)
    torch.testing.assert_close(sides, torch.full((64,), 0.5), atol=0.03, rtol=0)  # a square from 4 to 12 of 16


def test_a_set_lies_in_one_split_and_closed_or_broken_ones_in_none(folder):
    data = Icons(str(folder))
    found = {name: {data.cluster(key) for key in data.split(name).keys} for name in ("train", "val", "test")}
    assert set.union(*found.values()) == {f"set{number}" for number in range(1, 12)}
    for name, sets in found.items():
        assert {split_of(icon_set) for icon_set in sets} <= {name}
    keys = [key for name in ("train", "val", "test") for key in data.split(name).keys]
    assert len(keys) == 22
    assert "set1/star" not in keys
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sum(entry["unreadable"] for entry in manifest["splits"].values()) == 1
    assert list(lint.findings(folder)) == []


def test_outlines_lie_evenly_on_the_edge():
    points = outline(svg(CIRCLE, 0, 0, 16, 16), 200)
    np.testing.assert_allclose(np.hypot(*points.T), 0.5, atol=0.02)
    steps = np.hypot(*np.diff(points, axis=0).T)
    assert steps.max() < 1.2 * np.median(steps)


def test_pictures_are_centred_on_white():
    picture = render(svg(SQUARE, 0, 0, 16, 8), 32)  # wide: 32 x 16, its lower half cut off
    assert (picture[:8] == 255).all()
    assert (picture[24:] == 255).all()
    assert picture[16:24, 8:24].max() == 0


def test_drawings_without_paths_keep_their_body_and_empty_ones_are_bad():
    assert path_bytes(SQUARE + SQUARE) == b"M4 4h8v8H4z M4 4h8v8H4z"
    assert path_bytes(CIRCLE) == CIRCLE.encode()
    with pytest.raises(BadSampleError, match="no outline"):
        outline(svg("", 0, 0, 16, 16), 10)
    with pytest.raises(BadSampleError, match="cannot be drawn"):
        render("<svg", 16)


def test_other_files_and_choices_are_told_in_one_line(tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="is not @iconify/json"):
        prepare(["icons", "--source", str(tmp_path / "other.tgz"), "--out", str(tmp_path / "data")])
    with pytest.raises(UserError, match="choose from pixels, outline, path"):
        Icons(encodings=["pixel"])  # pyrefly: ignore


def test_training_pictures_are_moved_whole_and_others_stay(folder):
    still, moved = (Icons(str(folder), shift=shift) for shift in (0, 2))
    ways = set()
    for seed in range(20):
        given, found = (data.split("train").load(0, torch.Generator().manual_seed(seed)) for data in (still, moved))
        picture, other = given["pixels"], found["pixels"]
        offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
        # margins are white, so that rolling is moving
        fitting = [way for way in offsets if torch.equal(other, picture.roll(way, (0, 1)))]
        assert len(fitting) == 1
        ways |= set(fitting)
    assert len(ways) > 10
    for name in ("val", "test"):
        given, found = (data.split(name).load(0, torch.Generator().manual_seed(1)) for data in (still, moved))
        assert torch.equal(given["pixels"], found["pixels"])
