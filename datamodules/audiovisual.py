"""Clips with sight and sound: decoded from shards, cut to a window, given as video patches and waveform patches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import dialpad, shards
from datamodules.base import ByteArrayDataModule, CompactBatches, Split, SplitName, TensorSplit
from datamodules.byte_array import DataSpec
from datamodules.errors import BadSampleError, UserError
from datamodules.flatten import Flatten, GridModality
from datamodules.media import AudioWindow, VideoWindow, decode_clip
from datamodules.order import SampleRef
from datamodules.progress import track

Modality = Literal["audio", "video"]


class ClipSplit(Split):
    """Clips of mp4 and json in shards; from each a window of video and sound, at a random start if `random_start`."""

    def __init__(
        self,
        reader: shards.ShardReader,
        num_classes: int,
        video: VideoWindow | None,
        audio: AudioWindow | None,
        random_start: bool,
    ) -> None:
        self.reader, self.keys, self.num_classes = reader, reader.keys, num_classes
        self.video, self.audio, self.random_start = video, audio, random_start

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        files = self.reader.read(index)
        try:
            meta = json.loads(files["json"])
            labels, seconds = meta["labels"], float(meta["seconds"])
        except (KeyError, ValueError) as error:
            raise BadSampleError(f"{self.keys[index]}.json lacks labels or seconds, or is no JSON") from error
        room = max(0.0, seconds - self.window_seconds)
        start = room * torch.rand((), generator=generator).item() if self.random_start else 0.0
        try:
            video, audio = decode_clip(files["mp4"], start, self.video, self.audio)
        except BadSampleError as error:
            raise BadSampleError(f"{self.keys[index]}.mp4 {error}") from error
        sample = {"target": torch.zeros(self.num_classes).index_fill_(0, torch.tensor(labels), 1.0)}
        if video is not None:
            sample["video"] = video
        if audio is not None:
            sample["audio"] = audio
        return sample

    @property
    def window_seconds(self) -> float:
        lengths = []
        if self.video is not None:
            lengths.append(self.video.frames / self.video.fps)
        if self.audio is not None:
            lengths.append(self.audio.samples / self.audio.rate)
        return max(lengths)


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


class Dialpad(ByteArrayDataModule):
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
        if not modalities or len(set(modalities)) != len(modalities):
            raise UserError(f"modalities {list(modalities)}: name audio, video or both, each once")
        self.data_dir, self.clips = Path(data_dir), tuple(clips)
        self.in_memory, self.decode_workers = in_memory, decode_workers
        side, frames = dialpad.SIDE, dialpad.FRAMES
        grids = {
            "audio": GridModality((dialpad.SAMPLES,), 1, audio_bands, patch=(128,), std=6000.0),
            "video": GridModality((frames, side, side), 3, video_bands, patch=(2, 8, 8), mean=45.0, std=50.0),
        }
        chosen = {str(name): grids[name] for name in modalities}
        self.video = VideoWindow(frames, dialpad.FPS, side, side) if "video" in chosen else None
        self.audio = AudioWindow(dialpad.SAMPLES, dialpad.RATE) if "audio" in chosen else None
        self.flatten = Flatten(chosen)
        self.spec = DataSpec({n: grid.spec for n, grid in chosen.items()}, "multi_label", dialpad.CLASSES)

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare dialpad --out {self.data_dir}"

    def prepare_data(self) -> None:
        if not (self.data_dir / shards.MANIFEST).is_file():
            dialpad.compose(self.data_dir, self.clips, workers=self.decode_workers)

    def manifest(self) -> dict:
        manifest = shards.read_manifest(self.data_dir, self.how_to_make)
        made = manifest["made_with"].get("clips")
        if made != list(self.clips):
            raise UserError(
                f"{self.data_dir} holds {made} clips, --data.clips asks for {list(self.clips)}: "
                "set another --data.data_dir, or delete the folder"
            )
        return manifest

    def make_split(self, name: SplitName) -> Split:
        reader = shards.ShardReader(self.data_dir, self.manifest()["splits"][name], self.how_to_make)
        split = ClipSplit(reader, len(self.spec.classes), self.video, self.audio, random_start=name == "train")
        if not self.in_memory:
            return split
        return InMemory(split, f"{len(split.keys)} {name} clips", self.decode_workers)

    def fingerprint(self) -> str:
        return shards.fingerprint(self.data_dir, self.manifest())
