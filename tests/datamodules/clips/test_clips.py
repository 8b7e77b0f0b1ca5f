"""Windows of clips: where they stand, how they are named, and what augmentation does to them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import BadSampleError
from datamodules.clips.base import ClipSplit, VideoAugmentation, inception_crop
from datamodules.clips.media import encode_clip
from datamodules.clips.windows import AudioWindow, VideoWindow
from datamodules.core.order import sample_generator
from datamodules.core.windows import window_position
from datamodules.storage import shards

FPS, RATE, SIDE = 25, 8000, 32
VIDEO, AUDIO = VideoWindow(10, FPS, SIDE, SIDE), AudioWindow(3200, RATE)  # 0.4 s
LEVELS = 20 + 4 * np.arange(50)  # every frame of two seconds has its own grey


def grey_clip(frames: int, sound: bool = True) -> dict:
    pictures = np.broadcast_to(LEVELS[:frames, None, None, None], (frames, SIDE, 2 * SIDE, 3)).astype(np.uint8)
    samples = np.full(frames * RATE // FPS, 3000, np.int16) if sound else None
    return {
        "mp4": encode_clip(pictures, FPS, samples, RATE, key_every=12),
        "json": {"labels": [1], "seconds": frames / FPS},
    }


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> shards.ShardReader:
    """Clips of two seconds, of 0.2 s, without sound, and three that are broken."""
    folder = tmp_path_factory.mktemp("clips")
    clips = {
        "long": grey_clip(50),
        "short": grey_clip(5),
        "mute": grey_clip(50, sound=False),
        "empty": {"mp4": b"", "json": {"labels": [], "seconds": 2.0}},
        "cut": {**(whole := grey_clip(50)), "mp4": whole["mp4"][:500]},
        "bare": {"mp4": b"", "json": {"labels": []}},
    }
    line = shards.write_shard(folder / "test-000000.tar", [{"__key__": key, **clip} for key, clip in clips.items()])
    return shards.ShardReader(folder, [line], "make it")


def make(reader: shards.ShardReader, training: bool = False, **options) -> ClipSplit:
    return ClipSplit(reader, 3, VIDEO, AUDIO, training, **options)


def load(split: ClipSplit, key: str, epoch: int = 0) -> dict[str, torch.Tensor]:
    return split.load(split.keys.index(key), sample_generator(0, epoch, key))


def first_frame(sample: dict[str, torch.Tensor]) -> int:
    return round((sample["video"][0].float().mean().item() - 20) / 4)


def test_evaluation_windows_are_spread_evenly_from_first_to_last(reader):
    split = make(reader, windows=5)
    assert split.keys[:6] == ["long@00", "long@01", "long@02", "long@03", "long@04", "short@00"]
    assert [first_frame(load(split, f"long@{n:02d}")) for n in range(5)] == [0, 10, 20, 30, 40]
    assert load(split, "long@02")["target"].tolist() == [0, 1, 0]


def test_a_single_evaluation_window_is_the_middle(reader):
    split = make(reader)
    assert split.keys == reader.keys
    assert first_frame(load(split, "long")) == 20
    assert window_position(0, 1) == 0.5


def test_training_windows_start_at_random_and_are_drawn_by_the_generator_alone(reader):
    split = make(reader, training=True, windows=5)
    assert split.keys == reader.keys
    starts = [first_frame(load(split, "long", epoch)) for epoch in range(20)]
    assert starts == [first_frame(load(split, "long", epoch)) for epoch in range(20)]
    assert len(set(starts)) > 8
    assert min(starts) >= 0
    assert max(starts) <= 40


def test_a_clip_shorter_than_the_window_is_padded(reader):
    for sample in (load(make(reader), "short"), load(make(reader, training=True), "short")):
        levels = sample["video"].float().mean((1, 2, 3))
        assert (levels[4:] - levels[4]).abs().max() < 1  # the last frame stays
        assert sample["audio"][:1600].float().mean() > 2000
        assert not sample["audio"][1600 + 1024 :].any()


def test_a_clip_without_sound_is_silent_or_bad(reader):
    with pytest.raises(BadSampleError, match=r"mute\.mp4 has no audio stream"):
        load(make(reader), "mute")
    sample = load(make(reader, fill_missing=True), "mute")
    assert not sample["audio"].any()
    assert first_frame(sample) == 20


@pytest.mark.parametrize(
    ("key", "words"), [("empty", "empty.mp4 cannot"), ("cut", "cut.mp4 cannot"), ("bare", "seconds")]
)
def test_what_cannot_be_decoded_is_a_bad_sample_that_names_its_file(reader, key, words):
    with pytest.raises(BadSampleError, match=words):
        load(make(reader, fill_missing=True), key)


def test_augmentation_is_the_same_for_equal_generators_and_for_all_frames(tmp_path):
    rows, columns = np.mgrid[:SIDE, : 2 * SIDE]
    picture = np.stack([4 * rows, 3 * columns, 255 - 3 * columns], axis=-1).astype(np.uint8)
    clip = {"mp4": encode_clip(np.stack([picture] * 10), FPS, None, RATE), "json": {"labels": [0], "seconds": 0.4}}
    line = shards.write_shard(Path(tmp_path) / "a.tar", [{"__key__": "a", **clip}])
    read = shards.ShardReader(Path(tmp_path), [line], "make it")
    plain = ClipSplit(read, 3, VIDEO, None, training=True)
    augmented = ClipSplit(read, 3, VIDEO, None, training=True, augmentation=VideoAugmentation(0.3, True, 1.0))
    views = [load(augmented, "a", epoch)["video"].float() for epoch in range(6)]
    for epoch, view in enumerate(views):
        assert view.shape == (10, SIDE, SIDE, 3)
        assert torch.equal(view, load(augmented, "a", epoch)["video"].float())
        assert (view - view[0]).abs().max() < 12  # the picture stands still
        assert (view - load(plain, "a", epoch)["video"].float()).abs().mean() > 5
    assert min((views[0] - view).abs().mean() for view in views[1:]) > 5


def test_flip_mirrors_one_clip_in_two():
    drawn = [VideoAugmentation(flip=True).draw(VIDEO, sample_generator(0, 0, str(n)))(SIDE, SIDE) for n in range(200)]
    mirrored = sum(("hflip", "") in filters for filters in drawn)
    assert 70 < mirrored < 130


def test_inception_crops_lie_in_the_picture_and_keep_their_share():
    for seed in range(200):
        name, box = inception_crop(90, 160, 0.2, seed)
        width, height, left, top = map(int, box.split(":"))
        assert name == "crop"
        assert 0 <= left <= 160 - width
        assert 0 <= top <= 90 - height
        assert width * height > 0.18 * 90 * 160
        assert 0.7 < width / height < 1.4
    assert inception_crop(10, 1000, 0.9, 0) is None


def test_no_augmentation_in_evaluation(reader):
    augmentation = VideoAugmentation(0.08, True, 1.0)
    plain, augmented = make(reader), make(reader, augmentation=augmentation)
    assert torch.equal(load(plain, "long")["video"], load(augmented, "long")["video"])
