"""LanguageId from a folder of prompts, and from the Debian packages where they are installed."""

import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from datamodules import Digits, UserError
from datamodules.sounds import prepare_language_id
from datamodules.sounds.language_id import LANGUAGES, SAMPLES, LanguageId
from datamodules.sounds.sound import sound_window
from datamodules.storage import shards
from src.api import with_clusters

PROMPTS = [f"digits/{n}" for n in range(12)] + [f"vm-{n}" for n in range(12)]


def prompt_sound(code: str, name: str) -> np.ndarray:
    """0.5 to 4 s of one level, by which it is known again."""
    number = list(LANGUAGES).index(code) * len(PROMPTS) + PROMPTS.index(name)
    return np.full(4000 + 1200 * PROMPTS.index(name), 100 + 50 * number, np.int16)


def prepare(source: Path | str, out: Path) -> str:
    parser = ArgumentParser()
    prepare_language_id.add_options(parser)
    return prepare_language_id.prepare(
        parser.parse_args(["--source", str(source), "--out", str(out), "--workers", "1"])
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for code in LANGUAGES:
        for name in PROMPTS:
            path = folder / f"{code}_XX_f_Speaker" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, prompt_sound(code, name), 8000)
    (folder / "en").symlink_to("en_XX_f_Speaker")  # as Debian's alternatives do
    soundfile.write(folder / "ru_XX_f_Speaker" / "empty.wav", np.zeros(0, np.int16), 8000)
    soundfile.write(folder / "ru_XX_f_Speaker" / "fast.wav", np.zeros(100, np.int16), 16_000)
    (folder / "fr_XX_f_Speaker" / "broken.wav").write_bytes(b"RIFF")
    return folder


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "language_id"
    assert "123 prompts" in prepare(source, out)
    return out


def prompts_of(folder: Path) -> dict[str, set[str]]:
    return {
        name: {key.partition("/")[2] for key in LanguageId(str(folder)).reader(name).keys}
        for name in ("train", "val", "test")
    }


def assert_no_prompt_on_two_sides(folder: Path) -> None:
    names = prompts_of(folder)
    assert all(names.values())
    assert not names["train"] & names["val"]
    assert not names["train"] & names["test"]
    assert not names["val"] & names["test"]


def test_no_prompt_is_on_two_sides_of_the_split(folder):
    assert_no_prompt_on_two_sides(folder)
    assert set.union(*prompts_of(folder).values()) == set(PROMPTS)


def test_every_prompt_is_there_once_per_language_and_faults_are_counted(folder):
    entries = shards.read_manifest(folder)["splits"].values()
    assert sum(entry["expected"] for entry in entries) == 123
    assert sum(entry["written"] for entry in entries) == 120
    assert [reason for entry in entries for reason in entry["reasons"]["too_short"]] == ["ru/empty has no samples"]
    unreadable = sorted(reason for entry in entries for reason in entry["reasons"]["unreadable"])
    assert unreadable[0].startswith("fr/broken cannot be decoded")
    assert unreadable[1] == "ru/fast has 1 channels at 16000 Hz, expected one at 8000 Hz"


def test_predictions_keep_the_prompt_as_cluster_in_whatever_language(folder):
    data = LanguageId(str(folder))
    keys = sorted(data.split("train").keys)
    kept = with_clusters({"key": np.array(keys)}, data)["cluster"].tolist()
    assert kept == [key.partition("/")[2] for key in keys]
    assert len(set(kept)) < len(keys)
    assert with_clusters({"key": np.array(["a", "b"])}, Digits()).keys() == {"key"}  # every sample is its own
    assert with_clusters([{"image_id": 1}], data) == [{"image_id": 1}]


def test_samples_have_their_language_and_their_own_sound(folder):
    data = LanguageId(str(folder))
    for name in ("train", "val", "test"):
        reader, split = data.reader(name), data.split(name)
        for index, key in enumerate(split.keys):
            code, _, prompt = key.partition("/")
            sample = split.load(index, torch.Generator().manual_seed(0))
            assert data.spec.classes[sample["target"]] == LANGUAGES[code]
            assert sample["audio"].max() == prompt_sound(code, prompt)[0]
            assert json.loads(reader.read(index)["json"])["seconds"] == len(prompt_sound(code, prompt)) / 8000


@pytest.mark.parametrize(("place", "begin"), [(0, 0), (0.5, 50), (1, 100)])
def test_windows_stand_at_their_place(place, begin):
    sound = np.arange(1, 201, dtype=np.int16)
    assert sound_window(sound, 100, place).tolist() == list(range(1 + begin, 101 + begin))
    padded = sound_window(sound[:100], 200, place)
    assert padded[begin : begin + 100].tolist() == list(range(1, 101))
    assert np.count_nonzero(padded) == 100


def test_shapes_are_those_of_the_spec_and_windows_share_a_key(folder):
    data = LanguageId(str(folder), eval_clips=3, batch_size=6)
    compact = next(iter(data.loader("test")))
    assert [key[-3:] for key in compact["key"]] == ["@00", "@01", "@02"] * 2
    assert compact["audio"].shape == (6, SAMPLES)
    batch = data.flatten(compact)
    spec = data.spec.modalities["audio"]
    assert batch.inputs["audio"].values.shape == (6, spec.elements, spec.channels) == (6, 128, 128)
    assert batch.target.shape == (6,)
    counts = [LanguageId(str(folder), eval_clips=n).describe()["splits"]["test"]["samples"] for n in (1, 3)]
    assert counts[0] == counts[1] == len(data.split("test").keys) // 3  # clips are counted, not windows


def test_training_windows_are_random_and_the_same_for_any_workers(folder):
    alone, workers = (list(LanguageId(str(folder), num_workers=n).loader("train", training=True)) for n in (0, 2))
    for one, other in zip(alone, workers, strict=True):
        assert torch.equal(one["audio"], other["audio"])


def test_a_folder_without_a_language_is_refused(tmp_path):
    (tmp_path / "en").mkdir()
    with pytest.raises(UserError, match="has no folder es or fr or it or ru"):
        prepare(tmp_path, tmp_path / "out")


@pytest.mark.skipif(
    len(prepare_language_id.language_folders(prepare_language_id.INSTALLED)) < len(LANGUAGES),
    reason=f"needs the prompts: apt-get install {' '.join(prepare_language_id.PACKAGES)}",
)
def test_the_debian_packages_hold_2831_prompts(tmp_path):
    assert "2,831 prompts" in prepare("debian", tmp_path / "language_id")
    entries = shards.read_manifest(tmp_path / "language_id")["splits"].values()
    assert sum(entry["expected"] for entry in entries) == 2831
    assert sum(entry["written"] for entry in entries) == 2830  # one Russian file is empty
    assert_no_prompt_on_two_sides(tmp_path / "language_id")
