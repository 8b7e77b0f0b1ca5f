"""GarmentsSpoken: seen garments and heard languages."""

from __future__ import annotations

from typing import Any, cast

from ..core.datamodule import SplitName
from ..storage.shards import ShardReader
from . import compose_garments_spoken
from .composed import ComposedClips
from .windows import AudioWindow, VideoWindow


class GarmentsSpoken(ComposedClips):
    """Moving Fashion-MNIST garments with spoken telephone prompts: 10 garments seen, 5 languages heard, multi-label.

    Garment and language are independent, so each modality carries labels that the other cannot reveal. Garments and prompts
    of val and test do not occur in training, but each language has only one speaker (see LanguageId).
    The modality `video` is 32 frames of 40x40 in patches of 2x8x8: 400 elements of 384 channels. `audio` is 1.28 s at 8 kHz:
    80 elements of 128 samples. In memory, 6,000 clips take 1 GB.

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare garments_spoken`.
        kwargs: see ComposedClips.
    """

    prepared_as = "garments_spoken"
    licence = "MIT AND CC-BY-3.0 AND CC-BY-SA-3.0"
    credit = "Fashion-MNIST (Zalando SE, 2017) and asterisk-core-sounds (the speakers are named in its copyright files)"

    def __init__(self, data_dir: str = "data/garments_spoken", **kwargs: Any) -> None:
        side, frames = compose_garments_spoken.SIDE, compose_garments_spoken.FRAMES
        video = VideoWindow(frames, compose_garments_spoken.FPS, side, side)
        audio = AudioWindow(compose_garments_spoken.SAMPLES, compose_garments_spoken.RATE)
        super().__init__(video, audio, compose_garments_spoken.CLASSES, data_dir, **kwargs)
        self._stored: dict[str, tuple[ShardReader, dict[str, int]]] = {}  # by split: clips and their places

    def cluster(self, key: str) -> str:
        """The picture of the garment: several clips show it."""
        split = key.partition("-")[0]
        if split not in self._stored:
            reader = self.reader(cast("SplitName", split))
            self._stored[split] = reader, {name: number for number, name in enumerate(reader.keys)}
        reader, places = self._stored[split]
        return str(reader.read(places[key], only=("json",)).metadata().get("garment", key))
