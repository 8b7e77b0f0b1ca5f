"""Dialpad: composed clips, their shapes and labels, in memory or not, with any number of workers."""

from pathlib import Path

import pytest
import torch

from datamodules import Dialpad, UserError
from datamodules.clips import compose_dialpad
from datamodules.images.digits import digit_split

CLIPS = (20, 10, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dialpad") / "clips"
    make(path).prepare_data()
    return path


def make(folder: Path, **options) -> Dialpad:
    options = {"clips": CLIPS, "batch_size": 10, "in_memory": False, "decode_workers": 1, **options}
    return Dialpad(str(folder), **options)


def batches(data: Dialpad, name: str = "train", training: bool = False) -> list[dict]:
    return list(data.loader(name, training))


def assert_equal(first: list[dict], second: list[dict]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one["key"] == other["key"]
        for name in ("audio", "video", "target", "weight"):
            assert torch.equal(one[name], other[name])


def test_shapes_are_those_of_the_spec(folder):
    data = make(folder)
    [compact] = batches(data, "val")
    assert (compact["video"].dtype, compact["video"].shape) == (torch.uint8, (10, 32, 32, 32, 3))
    assert (compact["audio"].dtype, compact["audio"].shape) == (torch.int16, (10, 10240))
    batch = data.flatten(compact)
    for name, spec in data.spec.modalities.items():
        assert batch.inputs[name].values.shape == (10, spec.elements, spec.channels)
        assert batch.inputs[name].positions.shape == (spec.elements, spec.position_channels)


def test_labels_are_one_digit_seen_and_one_heard(folder):
    data = make(folder)
    targets = torch.cat([batch["target"] for batch in batches(data)])
    assert targets.shape == (20, data.spec.num_classes)
    assert set(targets.flatten().tolist()) == {0.0, 1.0}
    assert targets[:, :10].sum(1).tolist() == targets[:, 10:].sum(1).tolist() == [1.0] * 20


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_alone_is_what_it_is_beside_the_other(folder, modality):
    data = make(folder, modalities=[modality])
    assert list(data.spec.modalities) == [modality]
    [alone], [both] = batches(data, "val"), batches(make(folder), "val")
    assert torch.equal(alone[modality], both[modality])
    assert list(data.flatten(alone).inputs) == [modality]


@pytest.mark.parametrize("modalities", [[], ["audio", "audio"]])
def test_no_modality_or_one_twice_is_refused(folder, modalities):
    with pytest.raises(UserError, match="choose audio, video or both"):
        make(folder, modalities=modalities)


def test_in_memory_gives_the_same_data(folder):
    assert_equal(batches(make(folder, in_memory=True), training=True), batches(make(folder), training=True))


def test_composing_twice_gives_the_same_fingerprint_and_another_seed_another(folder, tmp_path):
    compose_dialpad.compose(tmp_path / "again", CLIPS, seed=0, workers=1)
    compose_dialpad.compose(tmp_path / "other", CLIPS, seed=1, workers=1)
    assert make(tmp_path / "again").fingerprint() == make(folder).fingerprint()
    assert make(tmp_path / "other").fingerprint() != make(folder).fingerprint()


def test_images_of_a_split_come_from_its_rows_alone(monkeypatch):
    """Each image is replaced by its row number, so that the composer shows what it drew."""
    rows = torch.arange(1797, dtype=torch.int16)[:, None, None].expand(-1, 8, 8)
    labels = compose_dialpad.load_digit_images()[1]
    drawn: list[int] = []
    monkeypatch.setattr(compose_dialpad, "load_digit_images", lambda: (rows, labels))
    monkeypatch.setattr(compose_dialpad, "moving_digit", lambda image, rng: drawn.append(int(image[0, 0])))
    monkeypatch.setattr(compose_dialpad, "encode_clip", lambda *args: b"")
    for split in ("train", "val", "test"):
        drawn.clear()
        clips = [compose_dialpad.compose_clip((split, number), seed=0) for number in range(30)]
        assert len(drawn) == 30
        assert set(drawn) <= set(digit_split(split))
        assert [clip["json"]["labels"][0] for clip in clips] == labels[drawn].tolist()


def test_another_number_of_clips_than_on_disk_is_refused(folder):
    with pytest.raises(UserError, match=r"holds \[20, 10, 10\] clips, but --data\.clips is \[20, 10, 11\]"):
        make(folder, clips=(20, 10, 11)).setup("fit")


def test_missing_clips_name_the_folder_and_the_command(tmp_path):
    with pytest.raises(
        UserError, match=rf"{tmp_path} has no manifest\.json: run `python -m datamodules\.prepare dialpad"
    ):
        make(tmp_path).setup("fit")
