"""The base class of composed clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.byte_array import DataSpec
from ..core.datamodule import Split, SplitName
from ..core.flatten import Flatten, GridModality
from ..storage.sharded import ShardedData
from .base import ClipSplit, InMemory, Modality, check_modalities
from .windows import AudioWindow, VideoWindow


class ComposedClips(ShardedData):
    """Base class of multi-label clips that were composed on this machine and last exactly one window.

    Args:
        video: the length and size of the clips.
        audio: the length of their sound.
        classes: names of the classes.
        data_dir: the folder of the shards.
        modalities: audio, video or both.
        video_bands: frequencies per axis of the Fourier features of video.
        audio_bands: frequencies of the Fourier features of audio.
        in_memory: whether to decode all clips once, before training, and keep them in memory.
        decode_workers: worker processes that decode them.
        kwargs: see ByteArrayDataModule.
    """

    def __init__(
        self,
        video: VideoWindow,
        audio: AudioWindow,
        classes: tuple[str, ...],
        data_dir: str,
        modalities: Sequence[Modality] = ("audio", "video"),
        video_bands: int = 8,
        audio_bands: int = 16,
        in_memory: bool = True,
        decode_workers: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_modalities(modalities)
        self.data_dir, self.in_memory, self.decode_workers = Path(data_dir), in_memory, decode_workers
        shape = (video.frames, video.height, video.width)
        grids = {
            "audio": GridModality(
                (audio.samples,), 1, audio_bands, patch=(128,), std=6000.0, kind="audio", rate=audio.rate
            ),
            "video": GridModality(
                shape, 3, video_bands, patch=(2, 8, 8), mean=45.0, std=50.0, kind="video", rate=video.fps
            ),
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
