"""Data sets of sight and sound: AudioSet, and two that are composed on this machine, Dialpad and GarmentsSpoken."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..core.byte_array import DataSpec
from ..core.datamodule import Split, SplitName
from ..core.errors import UserError
from ..core.flatten import GridModality
from ..sounds.spectrogram import FlattenAugmented, HidingSplit, LogMel
from ..storage.sharded import ShardedData
from .base import ClipSplit, Modality, VideoAugmentation, check_modalities
from .windows import AudioWindow, VideoWindow

log = logging.getLogger(__name__)


class AudioSet(ShardedData):
    """AudioSet (Gemmeke et al. 2017): 527 kinds of sound in clips of 10 s, multi-label, as Perceiver takes it.

    video: 32 frames at 25 per second (1.28 s) in patches of 2x8x8, at 224x224 12,544 elements of 384 channels. audio: the
    same 1.28 s at 48 kHz, raw as 480 elements of 128 samples, or mel as 60 x 80 = 4,800 elements (see LogMel). The paper
    does not say how many Fourier bands they had. Val is held out of the training clips; test is the official evaluation list.

    Clips go missing from the source from year to year, so results compare only beside the counts in the manifest. Its
    classes are named by `class_names`; the spec numbers them, since it is known before any data are.

    data_dir: the folder of the shards; `python -m datamodules.prepare audioset` makes them of your copy.
    modalities: audio, video or both.
    audio: raw or mel.
    num_classes: as many as the shards have.
    side: height and width of the frames that the model gets.
    video_bands, audio_bands: frequencies per axis of the Fourier features.
    crop_area, flip, colour: augmentation of training pictures, see VideoAugmentation.
    spec_augment: the widest band of frames and of mels that SpecAugment hides in training; (0, 0) is off.
    eval_clips, val_clips: windows of each test and each val clip, spread evenly over it, whose scores are averaged.
    fill_missing: a clip without pictures is black, one without sound silent; else it is a bad sample.
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
        batch_size: int = 64,
        num_workers: int = 2,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        check_modalities(modalities)
        self.data_dir = Path(data_dir)
        samples = self.rate * self.frames // self.fps
        if audio == "mel":
            sound = LogMel(samples, self.rate, frames=60, mels=80, bands=audio_bands)
        elif any(spec_augment):
            raise UserError(f"spec_augment {list(spec_augment)} hides parts of a spectrogram: set --data.audio mel")
        else:
            sound = GridModality((samples,), 1, audio_bands, patch=(128,), std=3000.0)
        if side % 8:
            raise UserError(f"side {side} does not divide into patches of 8 pixels: give a multiple of 8")
        shape = (self.frames, side, side)
        pictures = GridModality(shape, 3, video_bands, patch=(2, 8, 8), mean=127.5, std=63.75)
        chosen = {str(name): {"audio": sound, "video": pictures}[name] for name in modalities}
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
        """What the classes are called, in the order of the spec, as the shards' manifest has them."""
        return self.manifest()["made_with"]["classes"]

    def make_split(self, name: SplitName) -> Split:
        manifest = self.manifest()
        names = manifest["made_with"]["classes"]
        if len(names) != len(self.spec.classes):
            raise UserError(
                f"{self.data_dir} has {len(names)} classes, --data.num_classes is {len(self.spec.classes)}: "
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
