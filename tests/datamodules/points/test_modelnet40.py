"""Point clouds: what PointModality makes of points, and ModelNet40 from OFF files to batches."""

from pathlib import Path

import pytest
import torch

from datamodules import BadSampleError, UserError
from datamodules.core.positions import fourier_features
from datamodules.points.base import PointModality
from datamodules.points.modelnet40 import MODELNET40_CLASSES, ModelNet40
from datamodules.prepare import main as prepare
from datamodules.storage.shards import write_shards
from tests.support.meshes import BOX, TETRAHEDRON

POINTS = 64


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Boxes as bathtubs and tetrahedra as tents; one file is cut short and one has a joined header."""
    folder = tmp_path_factory.mktemp("source") / "ModelNet40"
    for name, mesh in (("bathtub", BOX), ("tent", TETRAHEDRON)):
        for split, numbers in (("train", range(1, 21)), ("test", range(21, 26))):
            (folder / name / split).mkdir(parents=True)
            for number in numbers:
                (folder / name / split / f"{name}_{number:04d}.off").write_text(mesh)
    (folder / "tent/train/tent_0007.off").write_text(TETRAHEDRON[:-9])
    (folder / "tent/train/tent_0008.off").write_text(TETRAHEDRON.replace("OFF\n", "OFF"))
    (folder / "README.txt").write_text("not a class")
    return folder


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("modelnet40") / "clouds"
    prepare(["modelnet40", "--source", str(source), "--out", str(out), "--points", str(2 * POINTS), "--workers", "1"])
    return out


def test_names_with_dots_other_formats_and_bad_meshes_do_not_end_the_preparation(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / "source/tent" / split).mkdir(parents=True)
        (tmp_path / "source/tent" / split / "tent.v1.2.off").write_text(TETRAHEDRON)
        (tmp_path / "source/tent" / split / "cut.off").write_text(TETRAHEDRON[:-9])
    corners = "vertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n"
    solid = f"solid s\nfacet normal 0 0 1\nouter loop\n{corners}endloop\nendfacet\nendsolid s\n"
    (tmp_path / "source/tent/train/flat.stl").write_text(solid)
    options = ["--source", str(tmp_path / "source"), "--points", "64", "--workers", "1"]
    assert prepare(["modelnet40", *options, "--out", str(tmp_path / "out")]) == 0
    assert "2 train clouds of 3 files" in capsys.readouterr().out
    assert ModelNet40(str(tmp_path / "out"), points=64).reader("train").keys == ["tent/flat", "tent/tent_v1_2"]
    (tmp_path / "source/tent/train/flat.off").write_text(TETRAHEDRON)
    with pytest.raises(UserError, match=r"flat\.off and tent/train/flat\.stl would have one name"):
        prepare(["modelnet40", *options, "--out", str(tmp_path / "other")])


def make(folder: Path, **options) -> ModelNet40:
    return ModelNet40(str(folder), **{"points": POINTS, "bands": 4, "batch_size": 4, **options})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_spec_is_the_papers_387_channels():
    modality = ModelNet40().spec.modalities["points"]
    assert modality.channels + modality.position_channels == 387
    assert (modality.elements, modality.grid, modality.coordinates) == (2048, None, 3)
    assert len(set(MODELNET40_CLASSES)) == 40


def test_concat_is_the_coordinates_with_their_own_fourier_features():
    modality = PointModality(POINTS, bands=5, max_frequency=20.0)
    array = modality(torch.rand(3, POINTS, 3))
    assert array.grid is None
    assert array.values.shape == (3, POINTS, 3)
    assert array.positions.shape == (3, POINTS, modality.spec.position_channels)
    torch.testing.assert_close(array.concat(), fourier_features(array.values, 5, 20.0))


@pytest.mark.parametrize("fit", ["cube", "sphere"])
def test_clouds_are_centred_and_reach_the_bound_wherever_they_were(fit):
    modality = PointModality(POINTS, bands=2, max_frequency=8.0, fit=fit)
    raw = torch.rand(4, POINTS, 3) * torch.tensor([1.0, 2.0, 3.0])
    values = modality(raw).values
    assert values.mean(1).abs().max() < 1e-6
    reach = values.abs().amax((1, 2)) if fit == "cube" else values.norm(dim=2).amax(1)
    torch.testing.assert_close(reach, torch.ones(4))
    torch.testing.assert_close(modality(raw * 7 + 2).values, values, atol=1e-5, rtol=0)
    # one scale for all axes, so the shape stays
    ratio = torch.cdist(values, values) / torch.cdist(raw, raw)
    torch.testing.assert_close(ratio[:, 0, 1:], ratio[:, :1, 1].expand(-1, POINTS - 1), atol=1e-3, rtol=0)


def test_a_cloud_of_one_point_stays_finite():
    assert PointModality(POINTS, 4, 8.0)(torch.ones(1, POINTS, 3)).concat().isfinite().all()


def test_splits_hold_a_tenth_of_each_class_out_of_training_and_share_nothing(folder):
    data = make(folder)
    keys = {name: data.split(name).keys for name in ("train", "val", "test")}
    assert {name: len(k) for name, k in keys.items()} == {"train": 35, "val": 4, "test": 10}
    assert not set(keys["train"]) & set(keys["val"])
    assert sorted(key.partition("/")[0] for key in keys["val"]) == ["bathtub", "bathtub", "tent", "tent"]
    assert "tent/tent_0008" in keys["train"] + keys["val"]
    assert data.describe()["splits"]["test"]["samples"] == 10


def test_the_manifest_names_the_file_that_could_not_be_read(folder):
    entry = make(folder).manifest()["splits"]["train"]
    assert (entry["expected"], entry["written"], entry["unreadable"]) == (40, 39, 1)
    [reason] = entry["reasons"]["unreadable"]
    assert "tent/train/tent_0007.off" in reason
    assert "declares 4 vertices and 4 faces but has 7 lines" in reason


def test_batches_have_the_shapes_of_the_spec_and_the_classes_of_the_folders(folder):
    data = make(folder)
    for compact in data.loader("test"):
        assert (compact["points"].dtype, compact["points"].shape) == (torch.float32, (4, POINTS, 3))
        batch = data.flatten(compact)
        spec = data.spec.modalities["points"]
        assert batch.inputs["points"].values.shape == (4, spec.elements, spec.channels)
        assert batch.inputs["points"].positions.shape == (4, spec.elements, spec.position_channels)
        for key, label in zip(batch.keys, batch.target.tolist(), strict=True):
            assert key.startswith(data.spec.classes[label])


def test_training_points_depend_on_seed_and_epoch_alone_and_evaluation_on_neither(folder):
    def clouds(data: ModelNet40, name, training: bool, epoch: int = 0) -> dict[str, torch.Tensor]:
        loader = data.loader(name, training)
        loader.sampler.set_epoch(epoch)
        return {k: c for b in loader for k, c in zip(b["key"], b["points"], strict=True)}

    def changed(one: dict, other: dict) -> list[bool]:
        return [not torch.equal(one[key], other[key]) for key in one.keys() & other.keys()]

    first = clouds(make(folder), "train", True)
    assert not any(changed(first, clouds(make(folder, num_workers=2), "train", True)))
    assert all(changed(first, clouds(make(folder), "train", True, epoch=1)))
    assert all(changed(first, clouds(make(folder, seed=1), "train", True)))
    assert not any(changed(clouds(make(folder), "test", False), clouds(make(folder, seed=1), "test", False)))


def test_training_moves_every_point_along_its_ray_by_at_most_the_jitter(folder):
    split = make(folder, jitter=0.01).split("train")
    whole = make(folder, points=2 * POINTS, jitter=0.0).split("train").load(0, generator())["points"]
    points = split.load(0, generator())["points"]
    near = torch.cdist(points, whole).argmin(1)
    assert len(set(near.tolist())) == POINTS  # different points of the cloud
    factor = (points * whole[near]).sum(1) / whole[near].square().sum(1)
    torch.testing.assert_close(points, factor[:, None] * whole[near], atol=1e-5, rtol=0)
    assert factor.min() >= 0.99 - 1e-5
    assert factor.max() <= 1.01 + 1e-5
    assert factor.std() > 0.003  # one each


def test_a_second_prepare_writes_nothing_and_other_points_are_refused(folder, source, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    command = ["modelnet40", "--source", str(source), "--out", str(folder), "--points"]
    prepare([*command, str(2 * POINTS)])
    assert "39 train clouds of 40 files (9,843 in the full set)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")} == before
    with pytest.raises(UserError, match="other items or settings"):
        prepare([*command, "32"])


def test_more_points_than_were_prepared_are_refused_with_the_command_that_makes_them(folder):
    with pytest.raises(UserError, match=r"is 500: .* --points 500`"):
        make(folder, points=500).split("train")


def test_missing_folders_are_named_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="prepare modelnet40 --source"):
        make(tmp_path / "none").split("train")
    with pytest.raises(UserError, match="set --source to the folder ModelNet40"):
        prepare(["modelnet40", "--source", str(tmp_path), "--out", str(tmp_path / "out")])


def not_a_cloud(key: str) -> dict:
    return {"__key__": key, "npy": b"no points", "json": {}}


def test_a_cloud_that_cannot_be_read_is_a_bad_sample_with_its_name(tmp_path):
    items = {"train": [f"bed/bed_{n}" for n in range(20)], "test": ["bed/bed_99"]}
    write_shards(tmp_path, "modelnet40", items, not_a_cloud, made_with={"points": POINTS}, licence="none", workers=1)
    with pytest.raises(BadSampleError, match=r"bed/bed_99\.npy is not an npy file"):
        make(tmp_path).split("test").load(0, generator())
