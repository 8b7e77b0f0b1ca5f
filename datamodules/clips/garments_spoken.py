"""Garments that are seen, and languages that are heard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from . import compose_garments_spoken
from .base import Modality
from .composed import ComposedClips
from .windows import AudioWindow, VideoWindow


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
        side, frames = compose_garments_spoken.SIDE, compose_garments_spoken.FRAMES
        video = VideoWindow(frames, compose_garments_spoken.FPS, side, side)
        audio = AudioWindow(compose_garments_spoken.SAMPLES, compose_garments_spoken.RATE)
        self.choose(modalities, video, audio, (video_bands, audio_bands), compose_garments_spoken.CLASSES)
