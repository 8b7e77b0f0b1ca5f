"""AudioSet, from shards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..core.byte_array import DataSpec
from ..core.checks import check_counts, check_range
from ..core.datamodule import Split, SplitName
from ..core.errors import UserError
from ..core.flatten import GridModality
from ..sounds.spectrogram import FlattenAugmented, HidingSplit, LogMel
from ..storage.sharded import ShardedData
from .base import ClipSplit, Modality, VideoAugmentation, check_modalities
from .windows import AudioWindow, VideoWindow

log = logging.getLogger(__name__)


class AudioSet(ShardedData):
    """AudioSet (Gemmeke et al. 2017) as the Perceiver uses it: 527 sound classes in clips of 10 s, multi-label.

    The modality `video` is 32 frames at 25 per second (1.28 s) in patches of 2x8x8: 12,544 elements of 384 channels at
    224x224. `audio` is the same 1.28 s at 48 kHz: 480 elements of 128 raw samples, or a mel spectrogram of 60 x 80 = 4,800
    elements (see LogMel). The paper does not give the number of Fourier bands. Val is held out from the training clips;
    test is the official evaluation list.

    Clips disappear from the source every year, so compare results only together with the counts in the manifest. The spec
    numbers the classes, since it is known before any data; `class_names` returns their names.

    Args:
        data_dir: the folder of the shards, which `python -m datamodules.prepare audioset` makes from your copy.
        modalities: audio, video or both.
        audio: `raw` samples, or the `mel` spectrogram.
        num_classes: number of classes in the shards.
        side: height and width of the frames in pixels, a multiple of 8.
        video_bands: frequencies per axis of the Fourier features of video.
        audio_bands: frequencies per axis of the Fourier features of audio.
        crop_area: smallest share of a training frame that the random crop keeps; 1 takes a centre crop.
        flip: whether to mirror training clips with probability 0.5.
        colour: strength of colour changes of training clips, see VideoAugmentation; 0 turns them off.
        spec_augment: largest width of the bands of frames and of mels that SpecAugment hides in training; (0, 0) turns it
            off.
        eval_clips: evenly spaced windows per test clip, whose scores are averaged; 1 is the middle.
        val_clips: the same for val clips.
        fill_missing: whether missing video becomes black and missing audio silence; otherwise the clip is a bad sample.
        num_workers: worker processes per rank; 0 loads in the training process.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "audioset"
    frames, fps, rate = 32, 25, 48_000

    def __init__(
        self,
        data_dir: str = "data/audioset",
        modalities: Sequence[Modality] = ("audio", "video"),
        audio: Literal["raw", "mel"] = "raw",
        num_classes: int = 527,
        side: int = 224,
        video_bands: int = 64,
        audio_bands: int = 64,
        crop_area: float = 0.08,
        flip: bool = True,
        colour: float = 1.0,
        spec_augment: tuple[int, int] = (0, 0),
        eval_clips: int = 16,
        val_clips: int = 1,
        fill_missing: bool = True,
        num_workers: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **kwargs)
        check_modalities(modalities)
        check_counts(num_classes=num_classes, side=side, eval_clips=eval_clips, val_clips=val_clips)
        check_range(0.001, 1, crop_area=crop_area)
        check_range(0, colour=colour, spec_augment=spec_augment)
        self.data_dir = Path(data_dir)
        samples = self.rate * self.frames // self.fps
        if audio == "mel":
            sound = LogMel(samples, self.rate, frames=60, mels=80, bands=audio_bands)
        elif any(spec_augment):
            raise UserError(f"spec_augment {list(spec_augment)} needs a spectrogram: set --data.audio mel")
        else:
            sound = GridModality((samples,), 1, audio_bands, patch=(128,), std=3000.0, kind="audio", rate=self.rate)
        if side % 8:
            raise UserError(f"side {side} is not divisible into patches of 8 pixels: use a multiple of 8")
        shape = (self.frames, side, side)
        frames = GridModality(
            shape, 3, video_bands, patch=(2, 8, 8), mean=127.5, std=63.75, kind="video", rate=self.fps
        )
        chosen = {str(name): {"audio": sound, "video": frames}[name] for name in modalities}
        self.video = VideoWindow(self.frames, self.fps, side, side) if "video" in chosen else None
        self.audio = AudioWindow(samples, self.rate) if "audio" in chosen else None
        self.augmentation = VideoAugmentation(crop_area, flip, colour)
        self.spec_augment = tuple(spec_augment) if self.audio and any(spec_augment) else None
        self.windows = {"train": 1, "val": val_clips, "test": eval_clips}
        self.fill_missing = fill_missing
        self.flatten = FlattenAugmented(chosen)
        classes = tuple(f"class {number:03d}" for number in range(num_classes))
        self.spec = DataSpec({name: modality.spec for name, modality in chosen.items()}, "multi_label", classes)

    @property
    def how_to_make(self) -> str:
        lists = "--csv TRAIN.csv --eval-csv EVAL.csv --labels class_labels_indices.csv"
        return f"python -m datamodules.prepare audioset --source FOLDER {lists} --out {self.data_dir}"

    def class_names(self) -> list[str]:
        """The names of the classes in the order of the spec, from the manifest."""
        return self.manifest()["made_with"]["classes"]

    def make_split(self, name: SplitName) -> Split:
        manifest = self.manifest()
        names = manifest["made_with"]["classes"]
        if len(names) != len(self.spec.classes):
            raise UserError(
                f"{self.data_dir} has {len(names)} classes, but --data.num_classes is {len(self.spec.classes)}: "
                f"set it to {len(names)}"
            )
        for missing in ("sound", "pictures"):
            if count := manifest.get("coverage", {}).get(name, {}).get(f"without {missing}"):
                log.warning("%d %s clips in %s have no %s", count, name, self.data_dir, missing)
        split = ClipSplit(
            self.reader(name),
            len(names),
            self.video,
            self.audio,
            training=name == "train",
            windows=self.windows[name],
            augmentation=self.augmentation,
            fill_missing=self.fill_missing,
        )
        if name == "train" and self.spec_augment is not None:
            return HidingSplit(split, frames=60, mels=80, widest=self.spec_augment)
        return split
