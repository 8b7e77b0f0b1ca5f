"""Clips in shards: random windows in training, evenly spaced ones in evaluation, augmentation, decoding into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from ..core.datamodule import CompactBatches, Split, TensorSplit
from ..core.errors import BadSampleError, UserError, decoding
from ..core.order import SampleRef
from ..core.progress import track
from ..core.random import randint, uniform
from ..core.windows import window_keys, window_position
from ..images.transforms import inception_box
from ..storage import shards
from .media import decode_window
from .windows import AudioWindow, Filters, VideoWindow

Modality = Literal["audio", "video"]


def check_modalities(modalities: Sequence[Modality]) -> None:
    if not modalities or not set(modalities) <= {"audio", "video"} or len(set(modalities)) != len(modalities):
        raise UserError(f"modalities {list(modalities)}: choose audio, video or both, each once")


@dataclass(frozen=True)
class VideoAugmentation:
    """Augmentation of training clips, drawn once for all frames of a clip.

    Args:
        crop_area: smallest share of the frame that the Inception crop keeps (Szegedy et al. 2015, section 6); 1 takes a
            centre crop instead.
        flip: whether to mirror clips with probability 0.5.
        colour: strength of colour changes: hue by up to 36 degrees, saturation by up to 40 % and brightness by up to
            12.5 %, each times this number; 0 turns them off.
    """

    crop_area: float = 1.0
    flip: bool = False
    colour: float = 0.0

    def draw(self, window: VideoWindow, generator: torch.Generator) -> Filters:
        """Draws the filters of one clip. The crop is relative to the frame, so it is the same for frames of any size."""
        settings = []
        if self.flip and randint(2, generator):
            settings.append(("hflip", ""))
        if self.colour:
            hue, saturation, brightness = (self.colour * uniform(-1, 1, generator) for _ in range(3))
            # FFmpeg counts brightness in steps of a tenth of the range
            settings.append(
                ("hue", f"h={36 * hue:.3f}:s={max(0.0, 1 + 0.4 * saturation):.3f}:b={1.25 * brightness:.3f}")
            )
        if self.crop_area == 1:
            return lambda height, width: [*window.center_crop(height, width), *settings]
        seed = randint(2**31, generator)
        return lambda height, width: [
            inception_crop(height, width, self.crop_area, seed) or window.center_crop(height, width)[0],
            *settings,
        ]


def inception_crop(height: int, width: int, area: float, seed: int) -> tuple[str, str] | None:
    """A crop of random area, aspect ratio and position, as FFmpeg filter; None if none fits."""
    box = inception_box(height, width, area, torch.Generator().manual_seed(seed))
    if box is None:
        return None
    top, left, h, w = box
    return "crop", f"{w}:{h}:{left}:{top}"


def window_start(seconds: float, window: float, position: float) -> float:
    """The start of a window at a relative position from 0 (first) to 1 (last) in a clip; 0 if the clip is shorter."""
    return max(0.0, seconds - window) * position


class ClipSplit(Split):
    """Clips in shards: a media file (mp4), and json with `labels`, a list of class indices, and `seconds`.

    Args:
        reader: the shards.
        num_classes: number of classes.
        video: the video window to take; None leaves video out.
        audio: the audio window to take; None leaves audio out.
        training: True takes one window of each clip, at a random start, and augments its frames.
        windows: evenly spaced windows per clip in evaluation. If there are several, each is a sample KEY@NUMBER, and the
            metrics average their scores.
        augmentation: augmentation of training frames.
        fill_missing: whether missing video becomes black and missing audio silence; otherwise the clip is a bad sample.
    """

    def __init__(
        self,
        reader: shards.ShardReader,
        num_classes: int,
        video: VideoWindow | None,
        audio: AudioWindow | None,
        training: bool,
        windows: int = 1,
        augmentation: VideoAugmentation | None = None,
        fill_missing: bool = False,
    ) -> None:
        self.reader, self.num_classes = reader, num_classes
        self.video, self.audio = video, audio
        self.training, self.windows = training, 1 if training else windows
        self.augmentation, self.fill_missing = augmentation, fill_missing
        self.keys = window_keys(reader.keys, self.windows)

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        number, window = divmod(index, self.windows)
        files = self.reader.read(number)
        labels, seconds = files.labels(self.num_classes), files.seconds()
        position = uniform(0, 1, generator) if self.training else window_position(window, self.windows)
        start = window_start(seconds, max(w.seconds for w in (self.video, self.audio) if w is not None), position)
        filters = None
        if self.training and self.video is not None and self.augmentation is not None:
            filters = self.augmentation.draw(self.video, generator)
        content = files["mp4"]
        with decoding(f"{files.key}.mp4"):
            video, audio, damage = decode_window(content, start, self.video, self.audio, filters, self.fill_missing)
        sample: dict[str, Any] = {"damage": damage} if damage else {}
        sample |= {"target": torch.zeros(self.num_classes).index_fill_(0, torch.tensor(labels, dtype=torch.long), 1.0)}
        if video is not None:
            sample["video"] = video
        if audio is not None:
            sample["audio"] = audio
        return sample


def load_into_memory(split: Split, what: str, workers: int) -> tuple[TensorSplit, dict[str, str], dict[str, str]]:
    """Decodes a split once. Only for splits whose samples are the same in every epoch.

    Returns:
        The decoded split; why samples could not be decoded, by their keys, whose tensors are those of others; and what was
        skipped of samples, by their keys.
    """
    # every rank needs all samples, so OrderedBatches does not fit
    steps = [
        [SampleRef(i, epoch=0, real=True) for i in step.tolist()] for step in torch.arange(len(split.keys)).split(64)
    ]
    loader = DataLoader(CompactBatches(split, seed=0, on_bad_sample="skip"), None, sampler=steps, num_workers=workers)
    batches = list(track(loader, what, total=len(steps), unit="batches"))
    names = [name for name in batches[0] if name not in ("key", "weight", "bad", "damaged")]
    bad, damaged = (
        {key: said for batch in batches for key, said in batch[kind].items()} for kind in ("bad", "damaged")
    )
    return TensorSplit(split.keys, {n: torch.cat([b[n] for b in batches]) for n in names}), bad, damaged


class InMemory(Split):
    """A split that is decoded into memory when it is opened. Bad samples are told when they are loaded."""

    def __init__(self, split: Split, what: str, workers: int) -> None:
        self.split, self.keys, self.what, self.workers = split, split.keys, what, workers
        self.decoded: TensorSplit | None = None
        self.bad: dict[str, str] = {}
        self.damaged: dict[str, str] = {}

    def open(self) -> None:
        if self.decoded is None:
            found = load_into_memory(self.split, f"decoding {self.what}", self.workers)
            self.decoded, self.bad, self.damaged = found

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        if self.bad and (reason := self.bad.get(self.keys[index])):
            raise BadSampleError(reason)
        sample = (self.decoded or self.split).load(index, generator)
        damage = self.damaged.get(self.keys[index])
        return {**sample, "damage": damage} if damage else sample
