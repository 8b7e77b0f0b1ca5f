"""Furniture: catalogues as Sweet Home 3D ships them, from zip to folds; the Debian package where it is installed."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from datamodules import UserError
from datamodules.points.furniture import FURNITURE_KINDS, FURNITURE_ROOMS, Furniture, furniture_kind
from datamodules.points.meshes import cloud_from_bytes
from datamodules.points.prepare_furniture import INSTALLED, read_catalogue
from datamodules.prepare import main as prepare
from tests.support.meshes import CORNERS, HEAD, PILLAR, SIDES, entry

POINTS = 32
LYING = "".join(f"v {x} {z} {-y}\n" for x, y, z in CORNERS) + SIDES


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Ten chairs, ten lamps, five that are of no kind, and one model without faces."""
    folder = tmp_path_factory.mktemp("catalogues")
    lines, models = [HEAD], {}
    for number in range(1, 26):
        name, room = [("Oak chair", "Office"), ("Desk lamp", "Lights"), ("Bill 10\\u20ac", "Kitchen")][
            (number - 1) // 10
        ]
        lines.append(entry(number, name, room, f"m{number}/m{number}.obj"))
        models[f"test/m{number}/m{number}.obj"] = PILLAR
    lines.append(entry(26, "Sofa", "Bedroom", "empty.obj"))
    models["test/empty.obj"] = "v 0 0 0\n"
    with zipfile.ZipFile(folder / "test.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines).encode("latin-1"))
        for name, model in models.items():
            archive.writestr(name, model)
    return folder


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("furniture") / "clouds"
    prepare(["furniture", "--source", str(source), "--out", str(out), "--points", str(2 * POINTS), "--workers", "1"])
    return out


def make(folder: Path, **options) -> Furniture:
    return Furniture(str(folder), **{"points": POINTS, "bands": 4, "batch_size": 5, **options})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Desk lamp", "lamp"),
        ("Glass door cabinet", "cabinet"),
        ("Double door with panes", "door"),
        ("Double French window 3 panes", "window"),
        ("Winchester armchair", "chair"),
        ("Futon couch", "sofa"),
        ("Bedside table", "table"),
        ("Plant box", "box"),
        ("Rounded type A plug", "plug"),
        ("Table fan", None),
        ("Window blind", None),
        ("Wheelchair", None),
        ("Mailbox", None),
        ("Female", None),
    ],
)
def test_the_last_word_that_names_a_kind_decides(name, kind):
    assert furniture_kind(name) == kind


def test_catalogues_are_read_with_their_escapes_and_licence(source):
    pieces = read_catalogue(source / "test.sh3f")
    assert len(pieces) == 26
    assert pieces[0][:4] == ("test.sh3f", "test/m1/m1.obj", "Oak chair", "Office")
    assert pieces[20].name == "Bill 10\u20ac"
    assert {piece.licence for piece in pieces} == {"Public domain \xa9"}


def test_the_model_that_cannot_be_read_is_named(folder, source, capsys):
    written = make(folder).manifest()["splits"]["all"]
    assert (written["expected"], written["written"]) == (26, 25)
    assert written["reasons"]["unreadable"] == ["test/empty.obj of test.sh3f has no faces"]
    prepare(["furniture", "--source", str(source), "--out", str(folder), "--points", str(2 * POINTS)])
    assert "already holds furniture" in capsys.readouterr().out


def test_models_are_set_upright_as_the_catalogue_says(tmp_path):
    text = (
        HEAD
        + entry(1, "Lamp", "Lights", "a.obj")
        + entry(2, "Lamp", "Lights", "b.obj", modelRotation="1 0 0 0 0 -1 0 1 0")
    )
    with zipfile.ZipFile(tmp_path / "one.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", text.encode("latin-1"))
        archive.writestr("test/a.obj", PILLAR)
        archive.writestr("test/b.obj", LYING)
    prepare(
        ["furniture", "--source", str(tmp_path), "--out", str(tmp_path / "out"), "--points", "500", "--workers", "1"]
    )
    reader = make(tmp_path / "out").reader("all")
    for number in range(2):
        files = reader.read(number)
        size = cloud_from_bytes(files["npy"]).abs().amax(0)
        torch.testing.assert_close(size, torch.tensor([0.25, 1.0, 0.25]), atol=0.02, rtol=0)
        assert json.loads(files["json"])["creator"] == "Ann"


@pytest.mark.parametrize(("labels", "expected"), [("kinds", 20), ("rooms", 25)])
def test_five_folds_test_every_shape_once_and_share_nothing(folder, labels, expected):
    tested = []
    for fold in range(5):
        data = make(folder, labels=labels, fold=fold)
        keys = {name: data.split(name).keys for name in ("train", "val", "test")}
        assert sum(map(len, keys.values())) == len({key for split in keys.values() for key in split}) == expected
        assert len(keys["val"]) in (expected // 10, expected // 10 + 1)
        tested += keys["test"]
        held = Counter(data.split("test").labels)
        assert max(held.values()) - min(held.values()) <= 1
    assert len(tested) == len(set(tested)) == expected


def test_the_shapes_of_a_catalogue_are_a_cluster(folder):
    data = make(folder)
    assert {data.cluster(key) for key in data.split("test").keys} == {"test.sh3f"}


def test_folds_are_fixed_and_dealt_anew_by_their_seed(folder):
    keys = [make(folder, fold=1, fold_seed=seed).split("test").keys for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert make(folder, fold=1, seed=5).split("test").keys == keys[0]


def test_training_alone_mirrors_left_and_right_and_stretches_axes(folder):
    data, plain = make(folder, stretch=0.2, mirror=True, jitter=0.0), make(folder, jitter=0.0)
    [one, *_], [other, *_] = data.loader("test"), plain.loader("test")
    assert torch.equal(one["points"], other["points"])
    factors = []
    for draw in range(40):
        moved, still = (d.split("train").load(0, torch.Generator().manual_seed(draw))["points"] for d in (data, plain))
        ratio = moved / still
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))  # the same of all points
        factors.append(ratio[0])
    left, *rest = torch.stack(factors).T
    assert 10 < (left < 0).sum() < 30
    assert all((axis > 0).all() for axis in rest)
    sizes = torch.stack(factors).abs().log()
    assert sizes.abs().max() <= 0.2 + 1e-5
    assert sizes.std(0).min() > 0.05


def test_batches_are_of_the_spec(folder):
    data = make(folder)
    batch = data.flatten(next(iter(data.loader("test"))))
    assert batch.inputs["points"].concat().shape == (5, POINTS, 3 * (2 * 4 + 1))
    assert {data.spec.classes[label] for label in batch.target.tolist()} <= {"chair", "lamp"}


def test_wrong_options_and_folders_end_in_one_line(tmp_path):
    with pytest.raises(UserError, match="a fold from 0 to 4"):
        Furniture(fold=5)
    with pytest.raises(UserError, match="prepare furniture --out"):
        make(tmp_path).split("train")
    with pytest.raises(UserError, match=r"no \.sh3f catalogue"):
        prepare(["furniture", "--source", str(tmp_path), "--out", str(tmp_path / "out")])
    (tmp_path / "broken.sh3f").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"broken\.sh3f is not a furniture catalogue"):
        prepare(["furniture", "--source", str(tmp_path), "--out", str(tmp_path / "out")])


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="needs apt-get install sweethome3d-furniture")
def test_debian_catalogues_have_820_models_in_12_rooms_and_13_kinds():
    pieces = [piece for path in sorted(INSTALLED.glob("*.sh3f")) for piece in read_catalogue(path)]
    assert len(pieces) == len({piece.model for piece in pieces}) == 820
    assert {piece.room for piece in pieces} == set(FURNITURE_ROOMS)
    kinds = Counter(kind for piece in pieces if (kind := furniture_kind(piece.name)))
    assert kinds.keys() == set(FURNITURE_KINDS.values())
    assert (len(kinds), min(kinds.values()), max(kinds.values())) == (13, 9, 58)
    assert sum(kinds.values()) == 271


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="needs apt-get install sweethome3d-furniture")
def test_a_debian_catalogue_is_prepared_without_loss(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "Reallusion.sh3f").symlink_to(INSTALLED / "Reallusion.sh3f")
    prepare(["furniture", "--source", str(tmp_path / "one"), "--out", str(tmp_path / "out")])
    entry = make(tmp_path / "out").manifest()["splits"]["all"]
    assert (entry["expected"], entry["written"]) == (25, 25)
