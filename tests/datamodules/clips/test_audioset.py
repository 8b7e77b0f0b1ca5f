"""AudioSet from a folder of odd files to batches: what is there is found, cut, re-encoded and counted."""

import io
import json
from argparse import ArgumentParser
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import lightning as L
import numpy as np
import pytest
import torch

from datamodules import UserError
from datamodules.clips import prepare_audioset
from datamodules.clips.audioset import AudioSet
from datamodules.clips.media import encode_clip
from datamodules.storage import shards
from src.backbones import Perceiver
from src.metrics.classification import average_precision_per_class
from src.tasks import Classification
from tests.support import QUIET
from tests.support.clips import CLASSES, WHOLE, sound, video

SIDE = 32
LINES = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=1, num_segs=1\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)


def wav(samples: np.ndarray, rate: int) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="wav")
    return file.getvalue()


FILM = encode_clip(video(3, 23.976), Fraction(24_000, 1001), sound(3, 44_100), 44_100)
SLOW = encode_clip(video(3, 10), 10, sound(3, 22_050), 22_050)
SURROUND = encode_clip(video(3), 25, sound(3, 48_000, 6), 48_000, bit_rate=256_000)
# id -> name of the file and its bytes, start, labels
TRAIN: dict[str, tuple[str | None, bytes, float, str]] = {
    "plain-clip_": ("plain-clip_.mp4", WHOLE, 30, "/m/a"),
    "film_23_976": ("deep/film_23_976_12.000.mp4", FILM, 12, "/m/a,/m/b"),
    "slow_10_fps": ("slow_10_fps_0_3.mp4", SLOW, 0, "/m/b"),
    "--surround-": ("--surround-.mp4", SURROUND, 7, "/t/c"),
    "stereosound": ("Ystereosound.wav", wav(sound(3, 16_000, 2), 16_000), 7, "/t/c"),
    "mute_clip_x": ("mute_clip_x.mp4", encode_clip(video(3), 25, None, 1), 7, "/m/a"),
    "short_2_sec": ("short_2_sec.mp4", encode_clip(video(2), 25, sound(2), 48_000), 7, "/m/a"),
    "tooshort_1s": ("tooshort_1s.mp4", encode_clip(video(1), 25, sound(1), 48_000), 7, "/m/a"),
    "zero_bytes_": ("zero_bytes_.mp4", b"", 7, "/m/a"),
    "truncated__": ("truncated__.mp4", WHOLE[: len(WHOLE) // 2], 7, "/m/a"),
    "not_there__": (None, b"", 7, "/m/a"),
}
TEST = {"whole_video": ("whole_video.mp4", encode_clip(video(9, step=1), 25, sound(9), 48_000), 5.0, "/m/a,/t/c")}


def write_list(path: Path, clips: dict) -> Path:
    lines = [f'{name}, {start:.3f}, {start + 3:.3f}, "{labels}"' for name, (_, _, start, labels) in clips.items()]
    path.write_text(LINES + "\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audioset")
    for file, content, _, _ in (TRAIN | TEST).values():
        if file is not None:
            (folder / "media" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "media" / file).write_bytes(content)
    write_list(folder / "train.csv", TRAIN)
    write_list(folder / "eval.csv", TEST)
    rows = [f'{n},{mid},"{name.replace(chr(34), chr(34) * 2)}"' for n, (mid, name) in enumerate(CLASSES.items())]
    (folder / "labels.csv").write_text("index,mid,display_name\n" + "\n".join(rows) + "\n")
    return folder


def prepare(source: Path, out: Path, **others: str) -> str:
    parser = ArgumentParser()
    prepare_audioset.add_options(parser)
    given = {
        "source": source / "media", "csv": source / "train.csv", "eval-csv": source / "eval.csv",
        "labels": source / "labels.csv", "side": SIDE, "val-clips": 4, "workers": 1, "out": out,
    } | {name.replace("_", "-"): value for name, value in others.items()}  # fmt: skip
    return prepare_audioset.prepare(parser.parse_args([word for n, v in given.items() for word in (f"--{n}", str(v))]))


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "audioset"
    said = prepare(source, out)
    assert "test 1 of 1 clips" in said
    return out


def make(folder: Path, **options) -> AudioSet:
    return AudioSet(str(folder), **{"num_classes": 3, "side": SIDE, "batch_size": 2, "num_workers": 0} | options)


def everything(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of all clips, by id."""
    found = {}
    for entry in shards.read_manifest(folder)["splits"].values():
        reader = shards.ShardReader(folder, entry["shards"], "")
        found |= {key.rpartition("_")[0]: reader.read(number) for number, key in enumerate(reader.keys)}
    return found


def test_manifest_accounts_for_every_listed_clip_and_says_why_some_are_missing(folder):
    manifest = shards.read_manifest(folder)
    entries = list(manifest["splits"].values())
    assert sum(entry["expected"] for entry in entries) == len(TRAIN) + len(TEST)
    assert sum(entry["written"] for entry in entries) == 8
    unreadable = "\n".join(reason for entry in entries for reason in entry["reasons"]["unreadable"])
    assert "zero_bytes__7000: zero_bytes_.mp4 cannot be opened" in unreadable
    assert "truncated___7000: truncated__.mp4 cannot be opened" in unreadable
    assert "not_there___7000 has no file in the source" in unreadable
    [short] = [reason for entry in entries for reason in entry["reasons"]["too_short"]]
    assert short.startswith("tooshort_1s_7000: tooshort_1s.mp4 has 1.0")
    coverage = manifest["coverage"]
    assert sum(split["present"] for split in coverage.values()) == 11
    assert sum(split["without sound"] for split in coverage.values()) == 1
    assert sum(split["without pictures"] for split in coverage.values()) == 1
    assert sum(split["shorter than listed"] for split in coverage.values()) == 1
    assert coverage["test"]["classes"] == 2
    assert make(folder).class_names() == list(CLASSES.values())


@pytest.mark.parametrize("name", ["plain-clip_", "film_23_976", "slow_10_fps", "--surround-"])
def test_clips_of_all_rates_come_out_at_25_frames_with_their_content_at_its_time(folder, name):
    with av.open(io.BytesIO(everything(folder)[name]["mp4"])) as container:
        pictures, voice = container.streams.video[0], container.streams.audio[0]
        assert (pictures.height, pictures.width, pictures.average_rate) == (SIDE, 2 * SIDE, 25)
        assert (voice.rate, voice.channels) == (48_000, 1)
        frames = [frame for frame in container.decode(video=0)]
    assert 74 <= len(frames) <= 75
    greys = np.array([frame.to_ndarray(format="gray").mean() for frame in frames])
    wanted = 20 + 4 * np.arange(len(frames))
    # a frame of the source lasts up to 2.5 of these; levels end at 250
    assert np.abs(greys - wanted)[wanted < 230].max() < 4 * 2.5 + 6


def test_a_whole_video_is_cut_to_its_clip(folder):
    with av.open(io.BytesIO(everything(folder)["whole_video"]["mp4"])) as container:
        greys = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    assert len(greys) == 75
    assert greys[0] == pytest.approx(20 + 5 * 25, abs=6)


def test_streams_that_are_missing_stay_missing(folder):
    clips = everything(folder)
    assert json.loads(clips["mute_clip_x"]["json"]) | {"seconds": 3} == {
        "labels": [0], "seconds": 3, "pictures": True, "sound": False
    }  # fmt: skip
    with av.open(io.BytesIO(clips["stereosound"]["mp4"])) as container:
        assert not container.streams.video
        assert container.streams.audio[0].channels == 1
    assert json.loads(clips["short_2_sec"]["json"])["seconds"] == pytest.approx(2, abs=0.1)


def test_prepared_twice_gives_the_same_bytes(source, folder, tmp_path):
    prepare(source, tmp_path / "again")
    assert make(tmp_path / "again").fingerprint() == make(folder).fingerprint()


def test_test_clips_are_evaluated_in_16_windows_and_training_ones_at_a_random_start(folder):
    data = make(folder, batch_size=16)
    [batch] = list(data.loader("test"))
    assert batch["key"] == [f"whole_video_5000@{n:02d}" for n in range(16)]
    first = batch["video"].float().mean((2, 3, 4))[:, 0]
    assert (first.diff() > 0).all()
    assert batch["target"].tolist() == [[1.0, 0.0, 1.0]] * 16
    assert data.flatten(batch).inputs["audio"].values.shape == (16, 480, 128)
    train, val = data.split("train").keys, data.split("val").keys
    assert val
    assert len({*train, *val}) == len(train) + len(val) == 7


@pytest.mark.parametrize("audio", ["raw", "mel"])
def test_shapes_are_those_of_the_spec_and_of_the_paper(folder, audio):
    data = make(folder, audio=audio)
    shapes = {name: (m.elements, m.channels) for name, m in make(folder, audio=audio, side=224).spec.modalities.items()}
    assert shapes == {"audio": (480, 128) if audio == "raw" else (4800, 1), "video": (12_544, 384)}
    batch = data.flatten(next(iter(data.loader("train", training=True))))
    for name, spec in data.spec.modalities.items():
        array = batch.inputs[name]
        assert array.values.shape == (2, spec.elements, spec.channels)
        assert array.positions.shape == (spec.elements, spec.position_channels)
        assert array.values.isfinite().all()


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_alone(folder, modality):
    data = make(folder, modalities=[modality], batch_size=1)
    for compact in data.loader("train", training=True):
        assert list(data.flatten(compact).inputs) == [modality]


def test_spec_augment_is_for_training_and_mel_only(folder):
    data = make(folder, audio="mel", spec_augment=(10, 20))
    train = next(iter(data.loader("train", training=True)))
    assert train["hidden"].shape == (2, 60, 80)
    assert not data.flatten(train).inputs["audio"].values[train["hidden"].flatten(1)].any()
    assert "hidden" not in next(iter(data.loader("val")))
    with pytest.raises(UserError, match=r"set --data\.audio mel"):
        make(folder, spec_augment=(10, 20))


def test_workers_give_the_same_clips_with_the_same_augmentation(folder):
    alone, workers = (list(make(folder, num_workers=n).loader("train", training=True)) for n in (0, 2))
    for one, other in zip(alone, workers, strict=True):
        assert one["key"] == other["key"]
        assert torch.equal(one["video"], other["video"])
        assert torch.equal(one["audio"], other["audio"])


def test_missing_streams_can_be_bad_samples(folder):
    data = make(folder, fill_missing=False, batch_size=6, on_bad_sample="skip")
    split = data.split("train")
    [compact] = list(data.loader("train", training=True))
    missing = {"mute_clip_x_7000", "stereosound_7000"} & set(split.keys)
    assert sorted(reason.partition(":")[0] for reason in compact["bad"]) == sorted(missing)


def test_another_number_of_classes_is_refused_in_one_line(folder):
    with pytest.raises(UserError, match=r"has 3 classes, but --data\.num_classes is 527: set it to 3"):
        AudioSet(str(folder)).setup("fit")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train.csv", LINES + 'plain-clip_, 0, 10, "/m/zzz"\n', "has the label /m/zzz, which is not in --labels"),
        ("train.csv", LINES + "plain-clip_, 0\n", "is not id, start, end, labels"),
        ("train.csv", LINES, "lists no clips"),
        ("train.csv", LINES + 'whole_video, 0, 10, "/m/a"\n', "whole_video is listed twice"),
        ("labels.csv", "a,b\n1,2\n", "set --labels to class_labels_indices.csv"),
    ],
)
def test_lists_that_are_wrong_are_refused(source, tmp_path, file, content, words):
    (tmp_path / file).write_text(content)
    option = {"train.csv": "csv", "labels.csv": "labels"}[file]
    with pytest.raises(UserError, match=words):
        prepare(source, tmp_path / "out", **{option: tmp_path / file})
    assert not (tmp_path / "out").exists()


def test_missing_shards_name_the_command(tmp_path):
    with pytest.raises(UserError, match="prepare audioset --source FOLDER --csv"):
        make(tmp_path).setup("fit")


def test_the_scores_of_a_clips_windows_are_averaged_by_a_model_that_is_trained_with_hidden_modalities(source, tmp_path):
    prepare(source, tmp_path / "out", val_clips="7")
    data = make(tmp_path / "out", val_clips=3, batch_size=2)
    data.test_split = "val"
    clips = len(data.reader("val").keys)
    perceiver = {"num_latents": 4, "latent_dim": 16, "cross_attends": 1, "self_attends_per_block": 1, "self_heads": 2}
    hidden = {"audio": 0.5, "video": 0.5}  # for some clips both
    task = Classification(data.spec, partial(Perceiver, **perceiver, modality_dropout=hidden))
    trainer = L.Trainer(accelerator="cpu", max_epochs=3, use_distributed_sampler=False, **QUIET)
    trainer.fit(task, data)
    assert trainer.callback_metrics["train/loss"].isfinite()
    [found] = trainer.test(task.eval(), data, verbose=False)
    assert found["test/samples"] == clips > 1

    batches = [data.flatten(compact) for compact in data.loader("val")]
    with torch.no_grad():
        scores = torch.cat([task(batch.inputs)[batch.weight > 0] for batch in batches])
    targets = torch.cat([batch.target[batch.weight > 0] for batch in batches])
    assert scores.shape == (3 * clips, 3)
    per_class = average_precision_per_class(scores.view(clips, 3, 3).mean(dim=1), targets[::3])
    assert found["test/map"] == pytest.approx(per_class.nanmean().item())
