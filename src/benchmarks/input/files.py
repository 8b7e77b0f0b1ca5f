"""Files of four kinds, as a folder of classes and as tars: what ours and other loaders read side by side."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import webdataset
from PIL import Image
from torch import Tensor

from datamodules.clips.media import encode_clip
from datamodules.prepare import main as prepare

from . import decoders

CLASSES = ("a", "b")
TARS = 4  # of the test split, so that several workers have some


@dataclass(frozen=True)
class Files:
    """Files of one kind.

    Attributes:
        name: what a table calls them.
        declared: the modality in our config.
        suffix: of the files.
        count: how many are read.
        make: the number of a file to its bytes.
        decode: how other loaders make the same tensor of these bytes.
    """

    name: str
    declared: dict[str, Any]
    suffix: str
    count: int
    make: Callable[[int], bytes]
    decode: Callable[[bytes], Tensor]


def part_of_photo(number: int, height: int, width: int) -> np.ndarray:
    """A part of one of scikit-learn's two photographs, another for each number."""
    from sklearn.datasets import load_sample_images

    photo = load_sample_images().images[number % 2]
    top, left = (7 * number % (length - size) for length, size in zip(photo.shape, (height, width), strict=False))
    return photo[top : top + height, left : left + width]


def picture(number: int) -> bytes:
    """A photograph of ImageNet's most usual size."""
    file = io.BytesIO()
    Image.fromarray(part_of_photo(number, 375, 500)).save(file, "jpeg", quality=90)
    return file.getvalue()


def sound(number: int) -> bytes:
    """Five seconds, as in ESC-50: a tone in noise."""
    time = np.arange(5 * 44_100) / 44_100
    noise = np.random.default_rng(number).standard_normal(len(time))
    file = io.BytesIO()
    wave = 8000 * np.sin(2 * np.pi * (200 + 20 * number) * time) + 20 * noise
    soundfile.write(file, wave.astype(np.int16), 44_100, format="WAV")
    return file.getvalue()


def video(number: int) -> bytes:
    """Four seconds of a moving photograph, 320 x 240 at 30 frames a second."""
    photo = part_of_photo(number, 300, 400)
    frames = [photo[n // 2 : n // 2 + 240, n // 2 : n // 2 + 320] for n in range(120)]
    return encode_clip(np.stack(frames), 30, None, 0, key_every=12, preset="medium")


def cloud(number: int) -> bytes:
    """2,048 points."""
    file = io.BytesIO()
    np.save(file, np.random.default_rng(number).standard_normal((2048, 3)).astype(np.float32))
    return file.getvalue()


def kinds(scale: float = 1.0) -> list[Files]:
    """The four kinds; `scale` times as many files as a benchmark reads."""

    def count(number: int) -> int:
        return max(2, round(scale * number))

    side, rate = decoders.SIDE, decoders.RATE
    sounds = {"kind": "sound", "rate": rate, "seconds": decoders.SAMPLES / rate}
    videos = {"kind": "video", "frames": decoders.FRAMES, "fps": decoders.FPS, "side": decoders.FRAME_SIDE}
    return [
        Files(
            "pictures, 500x375 JPEG to 224x224", {"kind": "image", "side": side}, "jpg", count(300), picture,
            decoders.picture,
        ),
        Files("sounds, 5 s WAV to 2 s at 16 kHz", sounds, "wav", count(100), sound, decoders.sound),
        Files("videos, 4 s MP4 to 16 frames of 64x64", videos, "mp4", count(24), video, decoders.video),
        Files("clouds, 2,048 points to 1,024", {"kind": "points"}, "npy", count(600), cloud, decoders.cloud),
    ]  # fmt: skip


def write(files: Files, root: Path) -> None:
    """Writes root/folder/test/CLASS/*, with one file a class in train and val, and the same in root/tars, adopted."""
    (root / "tars").mkdir(parents=True)
    parts = {"test": range(files.count), "train": range(2), "val": range(2)}
    for split, numbers in parts.items():
        samples = []
        for number in numbers:
            where = root / "folder" / split / CLASSES[number % 2]
            where.mkdir(parents=True, exist_ok=True)
            content = files.make(number)
            (where / f"{number:04d}.{files.suffix}").write_bytes(content)
            samples.append((f"{split}{number:04d}", content, number % 2))
        in_order = sorted(samples, key=lambda sample: (sample[2], sample[0]))  # as in the folder
        step = -(-len(in_order) // TARS)
        for start in range(0, len(in_order), step):
            write_tar(root / "tars" / f"{split}-{start // step}.tar", files.suffix, in_order[start : start + step])
    prepare(["adopt", *(f"{split}={root}/tars/{split}-*.tar" for split in parts)])


def write_tar(path: Path, suffix: str, samples: list[tuple[str, bytes, int]]) -> None:
    with webdataset.TarWriter(str(path)) as writer:
        for key, content, label in samples:
            writer.write({"__key__": key, suffix: content, "json": json.dumps({"label": label}).encode()})
