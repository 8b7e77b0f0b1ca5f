"""Data sets of sight and sound: AudioSet, and two that are composed on this machine, Dialpad and GarmentsSpoken."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datamodules import dialpad, shards
from datamodules.base import Split, SplitName
from datamodules.byte_array import DataSpec
from datamodules.clips import ClipSplit, InMemory, Modality, ShardedData, VideoAugmentation, check_modalities
from datamodules.errors import UserError
from datamodules.flatten import Flatten, GridModality
from datamodules.sources import garments_spoken
from datamodules.spectrogram import FlattenAugmented, HidingSplit, LogMel
from datamodules.windows import AudioWindow, VideoWindow

log = logging.getLogger(__name__)


class ComposedClips(ShardedData):
    """Base of clips that were composed all of one length, a window's."""

    in_memory: bool
    decode_workers: int

    def choose(
        self,
        modalities: Sequence[Modality],
        video: VideoWindow,
        audio: AudioWindow,
        bands: tuple[int, int],
        classes: tuple[str, ...],
    ) -> None:
        """Set windows, flatten and spec of the modalities that are asked for. bands: of video and of audio."""
        check_modalities(modalities)
        shape = (video.frames, video.height, video.width)
        grids = {
            "audio": GridModality((audio.samples,), 1, bands[1], patch=(128,), std=6000.0),
            "video": GridModality(shape, 3, bands[0], patch=(2, 8, 8), mean=45.0, std=50.0),
        }
        chosen = {str(name): grids[name] for name in modalities}
        self.video = video if "video" in chosen else None
        self.audio = audio if "audio" in chosen else None
        self.flatten = Flatten(chosen)
        self.spec = DataSpec({name: grid.spec for name, grid in chosen.items()}, "multi_label", classes)

    def make_split(self, name: SplitName) -> Split:
        split = ClipSplit(self.reader(name), len(self.spec.classes), self.video, self.audio, training=name == "train")
        if not self.in_memory:
            return split
        return InMemory(split, f"{len(split.keys)} {name} clips", self.decode_workers)


class Dialpad(ComposedClips):
    """Handwritten digits moving over a 32x32 frame with telephone tones as sound: 10 digits seen, 10 heard, multi-label.

    video: 32 frames in patches of 2x8x8, 256 elements of 384 channels. audio: 1.28 s at 8 kHz, 80 elements of 128 samples.
    The clips are composed on this machine from scikit-learn's digits when data_dir is empty; nothing is downloaded.

    data_dir: the folder of the shards.
    modalities: audio, video or both.
    clips: numbers of clips in train, val and test.
    video_bands, audio_bands: frequencies per axis of the Fourier features.
    in_memory: decode all clips once, before training, and keep them.
    decode_workers: processes that do it.
    """

    prepared_as = "dialpad"

    def __init__(
        self,
        data_dir: str = "data/dialpad",
        modalities: Sequence[Modality] = ("audio", "video"),
        clips: tuple[int, int, int] = dialpad.CLIPS,
        video_bands: int = 8,
        audio_bands: int = 16,
        in_memory: bool = True,
        decode_workers: int = 2,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        self.data_dir, self.clips = Path(data_dir), tuple(clips)
        self.in_memory, self.decode_workers = in_memory, decode_workers
        video = VideoWindow(dialpad.FRAMES, dialpad.FPS, dialpad.SIDE, dialpad.SIDE)
        audio = AudioWindow(dialpad.SAMPLES, dialpad.RATE)
        self.choose(modalities, video, audio, (video_bands, audio_bands), dialpad.CLASSES)

    def prepare_data(self) -> None:
        if not shards.finished(self.data_dir):
            dialpad.compose(self.data_dir, self.clips, workers=self.decode_workers)

    def manifest(self) -> dict:
        manifest = super().manifest()
        made = manifest["made_with"].get("clips")
        if made != list(self.clips):
            raise UserError(
                f"{self.data_dir} holds {made} clips, --data.clips asks for {list(self.clips)}: "
                "set another --data.data_dir, or delete the folder"
            )
        return manifest


class GarmentsSpoken(ComposedClips):
    """Fashion-MNIST's garments moving over a 40x40 frame while a telephone prompt is spoken: 10 garments seen, 5 languages
    heard, multi-label.

    Garment and language are drawn apart, so each modality carries labels that the other cannot give. Garments and prompts
    of val and test are never seen in training; but each language has one speaker (see LanguageId).
    video: 32 frames in patches of 2x8x8, 400 elements of 384 channels. audio: 1.28 s at 8 kHz, 80 elements of 128 samples.

    data_dir: the folder of the shards; `python -m datamodules.prepare garments_spoken` composes them.
    modalities: audio, video or both.
    video_bands, audio_bands: frequencies per axis of the Fourier features.
    in_memory: decode all clips once, before training, and keep them; 6,000 take 1 GB.
    decode_workers: processes that do it.
    """

    prepared_as = "garments_spoken"

    def __init__(
        self,
        data_dir: str = "data/garments_spoken",
        modalities: Sequence[Modality] = ("audio", "video"),
        video_bands: int = 8,
        audio_bands: int = 16,
        in_memory: bool = True,
        decode_workers: int = 2,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        self.data_dir = Path(data_dir)
        self.in_memory, self.decode_workers = in_memory, decode_workers
        side, frames = garments_spoken.SIDE, garments_spoken.FRAMES
        video = VideoWindow(frames, garments_spoken.FPS, side, side)
        audio = AudioWindow(garments_spoken.SAMPLES, garments_spoken.RATE)
        self.choose(modalities, video, audio, (video_bands, audio_bands), garments_spoken.CLASSES)


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
