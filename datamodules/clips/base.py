"""Clips of sight and sound that lie in shards: windows of them, at random or evenly spread, augmented for training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..core.datamodule import CompactBatches, Split, TensorSplit
from ..core.errors import BadSampleError, UserError
from ..core.order import SampleRef
from ..core.progress import track
from ..images.transforms import draw, inception_box, uniform
from ..storage import shards
from .media import decode_clip
from .windows import AudioWindow, Filters, VideoWindow

Modality = Literal["audio", "video"]


def check_modalities(modalities: Sequence[Modality]) -> None:
    if not modalities or not set(modalities) <= {"audio", "video"} or len(set(modalities)) != len(modalities):
        raise UserError(f"modalities {list(modalities)}: name audio, video or both, each once")


@dataclass(frozen=True)
class VideoAugmentation:
    """What a training clip passes, drawn once for all of its frames.

    crop_area: Inception's crop keeps at least this share of the picture (Szegedy et al. 2015, section 6); the middle is
        kept where it is 1.
    flip: one clip in two is mirrored.
    colour: hue is turned by up to 36 degrees, saturation and brightness are changed by up to 40 % and 12.5 %, each times
        this number; 0 leaves them.
    """

    crop_area: float = 1.0
    flip: bool = False
    colour: float = 0.0

    def draw(self, window: VideoWindow, generator: torch.Generator) -> Filters:
        """One clip's filters; the same box, as a share of the picture, whatever its size."""
        settings = []
        if self.flip and draw(2, generator):
            settings.append(("hflip", ""))
        if self.colour:
            hue, saturation, brightness = (self.colour * uniform(-1, 1, generator) for _ in range(3))
            # FFmpeg counts brightness in steps of a tenth of the range
            settings.append(
                ("hue", f"h={36 * hue:.3f}:s={max(0.0, 1 + 0.4 * saturation):.3f}:b={1.25 * brightness:.3f}")
            )
        if self.crop_area == 1:
            return lambda height, width: [*window.middle(height, width), *settings]
        seed = draw(2**31, generator)
        return lambda height, width: [
            inception_crop(height, width, self.crop_area, seed) or window.middle(height, width)[0],
            *settings,
        ]


def inception_crop(height: int, width: int, area: float, seed: int) -> tuple[str, str] | None:
    """A rectangle of random area, shape and place, as FFmpeg's filter; None where none fits."""
    box = inception_box(height, width, area, torch.Generator().manual_seed(seed))
    if box is None:
        return None
    top, left, h, w = box
    return "crop", f"{w}:{h}:{left}:{top}"


def window_start(seconds: float, window: float, place: float) -> float:
    """Where a window begins that stands at `place`, from 0 (first) to 1 (last), in a clip; 0 where the clip is shorter."""
    return max(0.0, seconds - window) * place


class ClipSplit(Split):
    """Clips in shards: a media file (mp4) and json with `labels`, a list of class numbers, and `seconds`.

    video, audio: the windows to take; None leaves a modality out.
    training: one window of each clip, at a random start; its pictures pass `augmentation`.
    windows: in evaluation, how many windows of each clip, spread evenly; each is a sample named KEY@NUMBER where there are
        several, and metrics average their scores.
    fill_missing: a clip without pictures is black, one without sound silent; else they are bad samples.
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

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        number, window = divmod(index, self.windows)
        files = self.reader.read(number)
        key = self.reader.keys[number]
        try:
            about = json.loads(files["json"])
            labels, seconds = about["labels"], float(about["seconds"])
        except (KeyError, ValueError) as error:
            raise BadSampleError(f"{key}.json lacks labels or seconds, or is no JSON") from error
        place = uniform(0, 1, generator) if self.training else window_place(window, self.windows)
        start = window_start(seconds, max(w.seconds for w in (self.video, self.audio) if w is not None), place)
        filters = None
        if self.training and self.video is not None and self.augmentation is not None:
            filters = self.augmentation.draw(self.video, generator)
        try:
            video, audio = decode_clip(files["mp4"], start, self.video, self.audio, filters, self.fill_missing)
        except KeyError as error:
            raise BadSampleError(f"{key} has no mp4") from error
        except BadSampleError as error:
            raise BadSampleError(f"{key}.mp4 {error}") from error
        sample = {"target": torch.zeros(self.num_classes).index_fill_(0, torch.tensor(labels, dtype=torch.long), 1.0)}
        if video is not None:
            sample["video"] = video
        if audio is not None:
            sample["audio"] = audio
        return sample


def window_keys(keys: list[str], windows: int) -> list[str]:
    """The names of `windows` samples of every clip: KEY@00, KEY@01, ...; the key itself where there is one."""
    return keys if windows == 1 else [f"{key}@{window:02d}" for key in keys for window in range(windows)]


def window_place(window: int, windows: int) -> float:
    """Where the window of this number stands, from 0 (first) to 1 (last); a single one in the middle."""
    return 0.5 if windows == 1 else window / (windows - 1)


def load_into_memory(split: Split, what: str, workers: int) -> TensorSplit:
    """Decode a split once; right where its samples do not change from epoch to epoch."""
    # all samples on every rank, so not OrderedBatches
    steps = [
        [SampleRef(i, epoch=0, real=True) for i in step.tolist()] for step in torch.arange(len(split.keys)).split(64)
    ]
    loader = DataLoader(CompactBatches(split, seed=0, on_bad_sample="raise"), None, sampler=steps, num_workers=workers)
    batches = list(track(loader, what, total=len(steps), unit="batches"))
    names = [name for name in batches[0] if name not in ("key", "weight", "bad")]
    return TensorSplit(split.keys, {n: torch.cat([b[n] for b in batches]) for n in names})


class InMemory(Split):
    """A split that is decoded once, when it is opened."""

    def __init__(self, split: Split, what: str, workers: int) -> None:
        self.split, self.keys, self.what, self.workers = split, split.keys, what, workers
        self.decoded: TensorSplit | None = None

    def open(self) -> None:
        self.decoded = self.decoded or load_into_memory(self.split, f"decoding {self.what}", self.workers)

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return (self.decoded or self.split).load(index, generator)
