"""Decoding with the usual libraries (Pillow, soundfile, PyAV, numpy), cut and scaled as our datamodules do."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import av
import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor
from torchaudio.transforms import Resample
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

SIDE, RATE, SAMPLES, POINTS = 224, 16_000, 32_768, 1024
FRAMES, FPS, FRAME_SIDE = 16, 8, 64


def picture(content: bytes) -> Tensor:
    return as_picture(Image.open(io.BytesIO(content)))


def as_picture(image: Image.Image) -> Tensor:
    """The square in the middle, scaled: (SIDE, SIDE, 3) uint8."""
    square: Any = F.center_crop(image.convert("RGB"), [min(image.size)])  # pyrefly: ignore
    return F.pil_to_tensor(F.resize(square, [SIDE, SIDE], InterpolationMode.BICUBIC)).permute(1, 2, 0)


@cache
def resampler(rate: int) -> Resample:
    return Resample(rate, RATE)


def sound(content: bytes) -> Tensor:
    """The middle, resampled: (SAMPLES,) int16."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        needed = round(SAMPLES / RATE * file.samplerate)
        file.seek((file.frames - needed) // 2)
        wave = torch.from_numpy(file.read(needed, dtype="float32", always_2d=True)).mean(dim=1)
    return (resampler(file.samplerate)(wave)[:SAMPLES] * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


def video(content: bytes) -> Tensor:
    """Frames of the middle at FPS, their squares scaled: (FRAMES, FRAME_SIDE, FRAME_SIDE, 3) uint8."""
    shown: list[np.ndarray] = []
    with av.open(io.BytesIO(content), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        start = (float(stream.duration * stream.time_base) - FRAMES / FPS) / 2  # pyrefly: ignore
        container.seek(int(start * av.time_base))
        before = None
        for frame in container.decode(stream):
            while before is not None and len(shown) < FRAMES and frame.time > start + (len(shown) + 0.25) / FPS:
                shown.append(before.to_ndarray(format="rgb24"))
            before = frame
            if len(shown) == FRAMES:
                break
    frames = F.center_crop(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2), [min(shown[0].shape[:2])])
    return F.resize(frames, [FRAME_SIDE, FRAME_SIDE], antialias=True).permute(0, 2, 3, 1)


def cloud(content: bytes) -> Tensor:
    return choose(torch.from_numpy(np.load(io.BytesIO(content))))


def choose(points: Tensor) -> Tensor:
    """Some of the points."""
    return points[torch.randperm(len(points))[:POINTS]]
