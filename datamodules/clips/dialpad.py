"""Dialpad: digits that are seen, and tones of digits that are heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..core.errors import UserError
from ..storage import shards
from . import compose_dialpad
from .base import Modality
from .composed import ComposedClips
from .windows import AudioWindow, VideoWindow


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
        clips: tuple[int, int, int] = compose_dialpad.CLIPS,
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
        video = VideoWindow(compose_dialpad.FRAMES, compose_dialpad.FPS, compose_dialpad.SIDE, compose_dialpad.SIDE)
        audio = AudioWindow(compose_dialpad.SAMPLES, compose_dialpad.RATE)
        self.choose(modalities, video, audio, (video_bands, audio_bands), compose_dialpad.CLASSES)

    def prepare_data(self) -> None:
        if not shards.finished(self.data_dir):
            compose_dialpad.compose(self.data_dir, self.clips, workers=self.decode_workers)

    def manifest(self) -> dict:
        manifest = super().manifest()
        made = manifest["made_with"].get("clips")
        if made != list(self.clips):
            raise UserError(
                f"{self.data_dir} holds {made} clips, --data.clips asks for {list(self.clips)}: "
                "set another --data.data_dir, or delete the folder"
            )
        return manifest
