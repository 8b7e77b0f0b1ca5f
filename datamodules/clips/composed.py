"""The base of clips that were composed on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.byte_array import DataSpec
from ..core.datamodule import Split, SplitName
from ..core.flatten import Flatten, GridModality
from ..storage.sharded import ShardedData
from .base import ClipSplit, InMemory, Modality, check_modalities
from .windows import AudioWindow, VideoWindow


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
