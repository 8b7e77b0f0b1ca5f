"""GarmentsSpoken, composed of small sets: labels fit what is seen and heard, and test parts are never in training."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from datamodules import UserError
from datamodules.clips import compose_garments_spoken
from datamodules.clips.garments_spoken import GarmentsSpoken
from datamodules.sounds.language_id import LANGUAGES
from datamodules.storage import shards

CLIPS = (12, 6, 6)


def options(folder: Path, out: Path, seed: int = 0) -> Namespace:
    parser = ArgumentParser()
    compose_garments_spoken.add_options(parser)
    return parser.parse_args(
        f"--garments {folder}/fashion --prompts {folder}/prompts --out {out} --seed {seed} --workers 1 --clips".split()
        + [str(count) for count in CLIPS]
    )


@pytest.fixture(scope="module")
def parts(tiny) -> Path:
    """The folder with the garments and prompts that clips are composed of."""
    tiny.folder("fashion"), tiny.folder("prompts")
    return tiny.root


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "garments"
    assert "24 clips" in compose_garments_spoken.prepare(options(parts, out))
    return out


def make(folder: Path, **others) -> GarmentsSpoken:
    return GarmentsSpoken(str(folder), **{"batch_size": 6, "in_memory": False, "decode_workers": 0} | others)


def abouts(folder: Path, split: str) -> list[dict]:
    reader = make(folder).reader(split)
    return [json.loads(reader.read(number)["json"]) for number in range(len(reader.keys))]


def test_shapes_are_those_of_the_spec(folder):
    data = make(folder)
    assert data.spec.num_classes == 15
    batch = data.flatten(next(iter(data.loader("train", training=True))))
    for name, spec in data.spec.modalities.items():
        assert batch.inputs[name].values.shape == (6, spec.elements, spec.channels)
    assert batch.inputs["video"].grid == (16, 5, 5)
    assert batch.target.sum(dim=1).tolist() == [2.0] * 6


def test_what_is_seen_and_heard_is_what_the_labels_say(folder):
    for name in ("train", "val", "test"):
        for about in abouts(folder, name):
            seen, heard = about["labels"]
            assert about["garment"] % 10 == seen or name != "test"  # test rows keep their file's order
            assert about["prompt"].startswith(list(LANGUAGES)[heard - 10] + "/")


def test_test_prompts_and_garments_are_never_in_training(folder):
    names = {
        split: {about["prompt"].partition("/")[2] for about in abouts(folder, split)}
        for split in ("train", "val", "test")
    }
    assert not names["train"] & names["test"]
    assert not names["train"] & names["val"]


def test_clips_of_one_garment_are_a_cluster(folder):
    data = make(folder)
    keys = list(data.split("test").keys)
    assert [data.cluster(key) for key in keys] == [str(about["garment"]) for about in abouts(folder, "test")]


def test_the_seed_decides_what_is_composed(parts, folder, tmp_path):
    compose_garments_spoken.prepare(options(parts, tmp_path / "again"))
    compose_garments_spoken.prepare(options(parts, tmp_path / "other", seed=1))
    assert make(tmp_path / "again").fingerprint() == make(folder).fingerprint()
    assert make(tmp_path / "other").fingerprint() != make(folder).fingerprint()


def test_missing_parts_name_the_command_that_makes_them(parts, tmp_path):
    with pytest.raises(UserError, match="prepare fashion_mnist"):
        compose_garments_spoken.prepare(options(tmp_path, tmp_path / "out"))
    (tmp_path / "fashion").symlink_to(parts / "fashion")
    with pytest.raises(UserError, match="prepare language_id"):
        compose_garments_spoken.prepare(options(tmp_path, tmp_path / "out"))
    assert not shards.finished(tmp_path / "out")
