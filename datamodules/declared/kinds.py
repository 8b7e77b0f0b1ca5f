"""The kinds of modalities that a config may declare: their options, their files, and how a value becomes a tensor.

A kind has a `module`, which makes byte arrays on the device, and `load`, which makes the compact tensor of one sample from
the content of a file or from a value in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.checks import check_counts
from ..core.errors import BadSampleError, UserError
from ..core.flatten import GridModality
from ..core.order import hashed_seed
from .kind import Kind, Value, as_bytes
from .series import Series, numbers


class Image(Kind):
    """Pictures: the largest square in the middle, upright by the EXIF data.

    Args:
        side: height and width in pixels.
        patch: side of a patch in pixels.
        bands: frequencies per axis of the Fourier features.
        crop: smallest share of the area that a random crop keeps in training; 1 takes the middle.
        flip: whether to mirror training pictures with probability 0.5.
    """

    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

    def __init__(self, side: int = 64, patch: int = 4, bands: int = 16, crop: float = 1.0, flip: bool = False) -> None:
        check_counts(side=side, patch=patch)
        self.side, self.area, self.flip = side, crop, flip
        self.module = GridModality((side, side), 3, bands, patch=(patch, patch), mean=127.5, std=63.75)

    def load(self, value: Value) -> tuple[Tensor, None]:
        from ..images import transforms

        image = transforms.upright(transforms.decode_image(as_bytes(value)), value.content)
        height, width, _ = image.shape
        size = min(height, width)
        box = ((height - size) // 2, (width - size) // 2, size, size)
        if value.generator is not None and self.area < 1:
            box = transforms.inception_box(height, width, self.area, value.generator) or box
        top, left, h, w = box
        image = transforms.resize(image[top : top + h, left : left + w], self.side, self.side)
        if value.generator is not None and self.flip:
            image = transforms.random_flip(image, value.generator)
        return image.contiguous(), None


class Clip(Kind):
    """Base class of what lies in media files."""

    window: Any

    def start(self, value: Value) -> float:
        from ..clips.base import window_start
        from ..clips.media import length_of

        return window_start(length_of(as_bytes(value)) or 0.0, self.window.seconds, value.position)


class Sound(Clip):
    """Sounds of any rate, format and number of channels, which are mixed to one; also the sound of a video.

    Args:
        rate: samples per second.
        seconds: length of a window; shorter sounds end in silence.
        patch: samples per element.
        mels: mel bands of a spectrogram with a frame for each patch; 0 takes the samples themselves.
        bands: frequencies per axis of the Fourier features.
    """

    suffixes = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus", ".aac", ".aif", ".aiff", ".wma", ".au")

    def __init__(
        self, rate: int = 16_000, seconds: float = 2.048, patch: int = 128, mels: int = 0, bands: int = 32
    ) -> None:
        from ..clips.windows import AudioWindow

        check_counts(rate=rate, patch=patch)
        samples = max(1, round(rate * seconds / patch)) * patch
        self.window = AudioWindow(samples, rate)
        if mels:
            from ..sounds.spectrogram import LogMel

            self.module: nn.Module = LogMel(samples, rate, frames=samples // patch, mels=mels, bands=bands)
        else:
            self.module = GridModality((samples,), 1, bands, (patch,), std=3000.0, kind="audio", rate=rate)

    def load(self, value: Value) -> tuple[Tensor, str | None]:
        from ..clips.media import decode_window

        _, sound, damage = decode_window(as_bytes(value), self.start(value), None, self.window)
        return present(sound), damage


class Video(Clip):
    """Videos: the middle of each frame.

    Args:
        frames: frames of a window; a shorter video repeats its last.
        fps: frames per second.
        side: height and width in pixels.
        patch: frames, rows and columns of a patch.
        bands: frequencies per axis of the Fourier features.
    """

    suffixes = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv")

    def __init__(
        self,
        frames: int = 16,
        fps: float = 8.0,
        side: int = 64,
        patch: Sequence[int] = (2, 8, 8),
        bands: int = 8,
    ) -> None:
        from ..clips.windows import VideoWindow

        check_counts(frames=frames, side=side)
        self.window = VideoWindow(frames, fps, side, side)
        shape = (frames, side, side)
        self.module = GridModality(shape, 3, bands, tuple(patch), mean=127.5, std=63.75, kind="video", rate=fps)

    def load(self, value: Value) -> tuple[Tensor, str | None]:
        from ..clips.media import decode_window

        video, _, damage = decode_window(as_bytes(value), self.start(value), self.window, None)
        return present(video), damage


class Points(Kind):
    """Clouds in npy (points, 3) float32 and PLY files, and meshes in OFF, OBJ, PLY and STL files, whose surface is sampled.

    Args:
        points: points per cloud.
        bands: frequencies of the Fourier features.
        max_frequency: maximum frequency of the Fourier features.
    """

    suffixes = (".npy", ".ply", ".off", ".obj", ".stl")

    def __init__(self, points: int = 1024, bands: int = 16, max_frequency: float = 32.0) -> None:
        from ..points.base import PointModality

        self.points, self.module = points, PointModality(points, bands, max_frequency)

    def load(self, value: Value) -> tuple[Tensor, None]:
        from ..points import meshes

        if isinstance(value.content, (list, np.ndarray)):
            cloud, faces = torch.tensor(numbers(value.content)), torch.empty(0, 3)
        elif value.name.lower().endswith(".npy"):
            cloud, faces = meshes.cloud_from_bytes(as_bytes(value)), torch.empty(0, 3)
        else:
            reader = meshes.READERS.get(PurePath(value.name).suffix.lower())
            if reader is None:
                raise BadSampleError(f"is none of {', '.join(self.suffixes)}")
            cloud, faces = reader(as_bytes(value))
        if len(faces):
            seed = hashed_seed("cloud", value.name) if value.generator is None else value.generator.initial_seed()
            return meshes.sample_surface(cloud, faces, self.points, seed), None
        if cloud.shape[1:] != (3,) or len(cloud) < self.points:
            raise BadSampleError(f"holds points of shape {tuple(cloud.shape)}, fewer than {self.points} of 3")
        # the same choice whenever it is evaluated
        generator = value.generator or torch.Generator().manual_seed(hashed_seed("points", value.name))
        return cloud[torch.randperm(len(cloud), generator=generator)[: self.points]].float(), None


class Text(Kind):
    """Texts as UTF-8 bytes: values of a table, or txt files.

    Args:
        elements: bytes of a text; longer ones are cut, shorter ones masked.
        bands: frequencies of the Fourier features.
    """

    suffixes = (".txt", ".md")
    in_files = False

    def __init__(self, elements: int = 256, bands: int = 16) -> None:
        from ..text import TextModality

        check_counts(elements=elements)
        self.elements, self.module = elements, TextModality(elements, bands)

    def load(self, value: Value) -> tuple[Tensor, None]:
        from ..text import PADDING

        content = value.content if isinstance(value.content, bytes) else str(value.content).encode()
        content.decode("utf-8")
        padded = np.full(self.elements, PADDING, np.int16)
        cut = np.frombuffer(content[: self.elements], np.uint8)
        padded[: len(cut)] = cut
        return torch.from_numpy(padded), None


def present(found: Tensor | None) -> Tensor:
    assert found is not None
    return found


KINDS: dict[str, Any] = {
    "image": Image,
    "sound": Sound,
    "video": Video,
    "points": Points,
    "text": Text,
    "series": Series,
}


def make_kind(name: str, kind: str, options: dict[str, Any]) -> Kind:
    """Makes a modality. Raises UserError for an unknown kind or option, or one of the wrong type."""
    if kind not in KINDS:
        raise UserError(f"modality {name} has the kind {kind!r}: use one of {', '.join(KINDS)}")
    try:
        return KINDS[kind](**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"modality {name}, a {kind}: {error}") from error
