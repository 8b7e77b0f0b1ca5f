"""Damaged files of every data set in shards: one line with `raise`; skipped, told and counted with `skip`."""

import json
import shutil
from pathlib import Path
from random import Random

import pytest
import torch

import datamodules
from datamodules import BadSampleError, UserError
from datamodules.core.datamodule import ByteArrayDataModule
from datamodules.prepare import main as prepare
from datamodules.prepare import run
from datamodules.storage import shards
from tests.support.damage import DAMAGES, flip_in_place, rewrite
from tests.support.tiny import Tiny

# The files of the samples of each data set, and options that make it fast
SETS = {
    "AudioSet": ("mp4", "json"),
    "Dialpad": ("mp4", "json"),
    "ImageNet": ("jpg", "json"),
    "LanguageId": ("wav", "json"),
}
SETS |= {"ModelNet40": ("npy",)}
FAST = {"AudioSet": {"eval_clips": 2, "video_bands": 1, "audio_bands": 1}, "ModelNet40": {"bands": 1}}
FAST |= {"Dialpad": {"decode_workers": 0}}
MEMBERS = [(name, extension) for name, extensions in SETS.items() for extension in extensions]
OTHER_JSON = (b"[]", b"{}", b"7", b'"label"', b"{" * 5000, b'{"label": 99, "labels": [99], "seconds": 1}')
OTHER_JSON += (b'{"label": true, "labels": "1", "seconds": 1}', b'{"label": 0, "labels": [0], "seconds": "x"}')
MUST_FAIL = ("missing", "empty", "noise")  # other damages may leave a file that can be decoded


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


def options_of(tiny: Tiny, name: str) -> dict:
    options = tiny.options(name)
    folder = Path(options["data_dir"])
    if name == "ImageNet":  # from shards
        folder = tiny.root / "imagenet_shards"
        if not folder.exists():
            assert prepare(["imagenet", "--source", options["data_dir"], "--out", str(folder), "--workers", "1"]) == 0
    if name == "Dialpad":
        getattr(datamodules, name)(**options).prepare_data()
    return options | {"data_dir": str(folder)}


@pytest.fixture
def copy(tiny, tmp_path, request):
    """The options of a data set in a copy of its folder, which a test may damage."""

    def copied(name: str) -> dict:
        options = options_of(tiny, name)
        shutil.copytree(options["data_dir"], tmp_path / "copy", dirs_exist_ok=True)
        return options | {"data_dir": str(tmp_path / "copy")}

    return copied


def make(name: str, options: dict, **others) -> ByteArrayDataModule:
    kind = getattr(datamodules, name)
    return kind(**options | FAST.get(name, {}), num_workers=0, batch_size=64, max_bad_share=1.0, **others)


def second_sample(options: dict) -> tuple[str, str]:
    """The file of the first shard of the test split, and the key of its second sample."""
    line = shards.read_manifest(options["data_dir"])["splits"]["test"]["shards"][0]
    return line["file"], shards.ShardReader(options["data_dir"], [line]).keys[1]


def check(name: str, options: dict, damaged: str, must_fail: bool) -> None:
    """Reads the split with both policies. The sample `damaged` may be skipped, and must be if `must_fail`."""
    with torch.random.fork_rng():
        data = make(name, options, on_bad_sample="skip")
        (batch,) = [data.on_after_batch_transfer(compact, 0) for compact in data.loader("test")]
    of_damaged = torch.tensor([key.partition("@")[0] == damaged for key in batch.keys])
    real = batch.weight > 0
    assert real[~of_damaged][: len(data.split("test").keys) - int(of_damaged.sum())].all()
    assert set(data.bad_samples) <= {damaged}
    assert bool(data.bad_samples) == (not real[of_damaged].any()) or not must_fail
    for reason in data.bad_samples.values():
        assert damaged in reason
        assert "\n" not in reason
        with pytest.raises(BadSampleError) as error:
            list(make(name, options).loader("test"))
        assert str(error.value) == reason
    assert data.bad_samples or not must_fail


@pytest.mark.parametrize(("name", "extension"), MEMBERS)
def test_a_damaged_source_file_is_a_bad_sample_or_can_be_decoded(copy, name, extension):
    for damage, change in DAMAGES.items():
        options = copy(name)
        file, key = second_sample(options)
        random = Random(0)
        rewrite(
            Path(options["data_dir"]),
            file,
            lambda k, e, content: change(content, random) if (k, e) == (key, extension) else content,  # noqa: B023
        )
        check(name, options, key, must_fail=damage in MUST_FAIL)


@pytest.mark.parametrize("name", [name for name, extension in MEMBERS if extension == "json"])
def test_a_json_that_is_not_what_the_data_set_needs_is_a_bad_sample(copy, name):
    for other in OTHER_JSON:
        options = copy(name)
        file, key = second_sample(options)
        rewrite(
            Path(options["data_dir"]),
            file,
            lambda k, e, content: other if (k, e) == (key, "json") else content,  # noqa: B023
        )
        needs_seconds = SETS[name][0] == "mp4"
        check(name, options, key, must_fail=b'"x"' not in other or needs_seconds)


@pytest.mark.parametrize(("name", "extension"), MEMBERS)
def test_a_bit_that_flipped_on_the_disk_is_a_bad_sample_and_a_finding(copy, name, extension, capsys):
    options = copy(name)
    folder = Path(options["data_dir"])
    file, key = second_sample(options)
    flip_in_place(folder, file, 1, extension, place=8)
    check(name, options, key, must_fail=True)
    assert run(["lint", str(folder)]) == 1
    assert f"{file}: {key}.{extension} is damaged (CRC-32)" in capsys.readouterr().out


def test_furniture_with_a_damaged_json_is_an_error_because_the_folds_depend_on_it(tiny, tmp_path):
    options = tiny.options("Furniture")
    shutil.copytree(options["data_dir"], tmp_path / "copy")
    shutil.copytree(options["data_dir"], tmp_path / "flipped")
    flip_in_place(tmp_path / "flipped", "all-000000.tar", 0, "json")
    with pytest.raises(UserError, match=r"json is damaged \(CRC-32\)"):
        datamodules.Furniture(data_dir=str(tmp_path / "flipped"), on_bad_sample="skip").split("val")
    rewrite(tmp_path / "copy", "all-000000.tar", lambda k, e, content: json.dumps({"name": 3}).encode())
    with pytest.raises(UserError, match=r"json cannot be decoded \('int' object has no attribute 'lower'\)"):
        datamodules.Furniture(data_dir=str(tmp_path / "copy"), on_bad_sample="skip").split("val")


def test_the_folder_of_another_data_set_is_refused(tiny):
    folder = options_of(tiny, "LanguageId")["data_dir"]
    for name, other in (("AudioSet", "audioset"), ("ImageNet", "imagenet"), ("ModelNet40", "modelnet40")):
        with pytest.raises(
            UserError, match=rf"{folder} holds language_id instead of {other}: set another --data.data_dir"
        ):
            getattr(datamodules, name)(data_dir=folder).split("val")
