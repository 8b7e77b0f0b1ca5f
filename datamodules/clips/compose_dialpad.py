"""Dialpad clips, composed here: a handwritten digit moves over a small frame while the DTMF tone of a digit plays.

The seen digit and the heard digit are independent, so each modality carries labels that the other cannot reveal. Digits
come from scikit-learn; those of the test split do not occur in training.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..core.datamodule import SPLITS, SplitName
from ..core.order import hashed_seed
from ..images.digits import digit_split, load_digit_images
from ..storage.shards import finished, write_shards
from .media import encode_clip

FRAMES, FPS, SIDE, RATE = 32, 25, 32, 8000
SAMPLES = RATE * FRAMES // FPS  # 1.28 s, as in AudioSet's recipe
CLASSES = tuple(f"see {d}" for d in range(10)) + tuple(f"hear {d}" for d in range(10))
CLIPS = (6000, 500, 1000)  # train, val, test
LICENCE = "composed by this project from scikit-learn's digits (BSD 3-Clause)"
# Frequencies in Hz of the rows and columns of a telephone keypad (ITU-T Q.23)
ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)
KEYPAD = {1: (0, 0), 2: (0, 1), 3: (0, 2), 4: (1, 0), 5: (1, 1), 6: (1, 2), 7: (2, 0), 8: (2, 1), 9: (2, 2), 0: (3, 1)}


def moving_digit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, S, S, 3) uint8 of a moving digit image (8, 8), scaled to twice its size."""
    big = torch.nn.functional.interpolate(
        torch.from_numpy(image).float()[None, None], size=(16, 16), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    return moving_image(big, SIDE, rng)


def moving_image(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, side, side, 3) uint8 of a tinted square image that crosses a noisy frame and bounces off its borders."""
    room = side - len(image)
    path = rng.uniform(0, 2 * room, 2) + np.arange(FRAMES)[:, None] * rng.uniform(-0.6, 0.6, 2)
    corners = np.abs((path % (2 * room)) - room).round().astype(int)  # a triangle wave from 0 to room
    colour = rng.uniform(0.6, 1.0, 3)
    noise = 30 + 20 * rng.standard_normal((FRAMES, side, side, 1), np.float32)
    frames = np.repeat(noise, 3, axis=-1)  # grey, since the codec halves the resolution of colours
    for frame, (row, column) in zip(frames, corners, strict=True):
        frame[row : row + len(image), column : column + len(image)] += image[..., None] * colour
    return frames.clip(0, 255).astype(np.uint8)


def tone(digit: int, rng: np.random.Generator) -> np.ndarray:
    """A sound (S,) int16: the two frequencies of a key for 0.4 to 0.9 s, surrounded by noise."""
    row, column = KEYPAD[digit]
    time = np.arange(SAMPLES) / RATE
    length = rng.uniform(0.4, 0.9)
    begin = rng.uniform(0, SAMPLES / RATE - length)
    phases = rng.uniform(0, 2 * math.pi, 2)
    wave = np.sin(2 * math.pi * ROWS[row] * time + phases[0]) + np.sin(2 * math.pi * COLUMNS[column] * time + phases[1])
    wave *= (time >= begin) & (time < begin + length)
    sound = rng.uniform(0.1, 0.3) * wave + rng.normal(0, 0.05, SAMPLES)
    return (sound.clip(-1, 1) * 32767).astype(np.int16)


def compose_clip(clip: tuple[SplitName, int], seed: int) -> dict:
    """Composes one clip, identified by split and number, as a webdataset sample."""
    split, number = clip
    images, labels = load_digit_images()
    rows = torch.tensor(digit_split(split))
    rng = np.random.default_rng(hashed_seed("dialpad", seed, split, number))
    seen, heard = int(rng.integers(10)), int(rng.integers(10))
    image = images[rng.choice(rows[labels[rows] == seen].numpy())].numpy()
    return {
        "__key__": f"{split}-{number:06d}",
        "mp4": encode_clip(moving_digit(image, rng), FPS, tone(heard, rng), RATE),
        "json": {"labels": [seen, 10 + heard], "seconds": FRAMES / FPS},
    }


def compose(folder: Path, clips: Sequence[int], seed: int = 0, workers: int = 2) -> dict:
    """Writes the shards with `clips` clips in train, val and test. Returns their manifest."""
    return write_shards(
        folder,
        "dialpad",
        {split: [(split, number) for number in range(count)] for split, count in zip(SPLITS, clips, strict=True)},
        partial(compose_clip, seed=seed),
        made_with={"clips": list(clips), "seed": seed},
        licence=LICENCE,
        workers=workers,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("data/dialpad"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--clips",
        type=int,
        nargs=3,
        default=CLIPS,
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of clips in each split (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    already = finished(options.out)
    compose(options.out, options.clips, workers=options.workers)
    if already:
        return f"{options.out} already holds dialpad"
    return f"{options.out}: {sum(options.clips):,} clips composed from scikit-learn's digits"
