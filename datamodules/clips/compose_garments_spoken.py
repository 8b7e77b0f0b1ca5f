"""GarmentsSpoken clips, composed here from fashion_mnist and language_id: a garment moves while a prompt is spoken."""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path

import numpy as np

from ..core.datamodule import SPLITS, SplitName, TensorSplit
from ..core.order import hashed_seed
from ..images.fashion_mnist import FASHION_CLASSES, FashionMNIST
from ..sounds.language_id import LANGUAGES, RATE, LanguageId
from ..sounds.sound import read_sound, sound_window
from ..storage.shards import ShardReader, write_shards
from .compose_dialpad import FPS, FRAMES, moving_image
from .media import encode_clip

SIDE = 40
SAMPLES = RATE * FRAMES // FPS
CLASSES = tuple(f"see {name}" for name in FASHION_CLASSES) + tuple(f"hear {name}" for name in LANGUAGES.values())
CLIPS = (6000, 500, 2000)  # train, val, test
LICENCE = "Fashion-MNIST: MIT; prompts: CC BY 3.0 and CC BY-SA 3.0 (asterisk-core-sounds)"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--garments",
        type=Path,
        default=Path("data/fashion_mnist"),
        help="the folder of fashion_mnist (default: %(default)s)",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        default=Path("data/language_id"),
        help="the folder of language_id (default: %(default)s)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        nargs=3,
        default=CLIPS,
        metavar=("TRAIN", "VAL", "TEST"),
        help="number of clips in each split (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of what is composed (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("data/garments_spoken"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    # before any worker starts, so that missing data are reported early
    parts = {
        "fashion_mnist": FashionMNIST(str(options.garments)).fingerprint(),
        "language_id": LanguageId(str(options.prompts)).fingerprint(),
    }
    write_shards(
        options.out,
        "garments_spoken",
        {split: [(split, n) for n in range(count)] for split, count in zip(SPLITS, options.clips, strict=True)},
        partial(compose_clip, garments=options.garments, prompts=options.prompts, seed=options.seed),
        made_with={"clips": list(options.clips), "seed": options.seed, **parts},
        licence=LICENCE,
        workers=options.workers,
    )
    return f"{options.out}: {sum(options.clips):,} clips composed from {options.garments} and {options.prompts}"


@cache
def read_garments(folder: Path, split: SplitName) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) uint8 and labels (n,)."""
    garments = FashionMNIST(str(folder)).make_split(split)
    assert isinstance(garments, TensorSplit)
    return garments.tensors["image"].numpy(), garments.tensors["target"].numpy()


@cache
def read_prompts(folder: Path, split: SplitName) -> tuple[ShardReader, list[list[int]]]:
    """The reader of a split and, for every language, the indices of its prompts, without those of silence."""
    reader = LanguageId(str(folder)).reader(split)
    languages = list(LANGUAGES)
    numbers: list[list[int]] = [[] for _ in languages]
    for number, key in enumerate(reader.keys):
        code, _, name = key.partition("/")
        if not name.startswith("silence/"):
            numbers[languages.index(code)].append(number)
    return reader, numbers


def compose_clip(clip: tuple[SplitName, int], garments: Path, prompts: Path, seed: int) -> dict:
    """Composes one clip, identified by split and number, as a webdataset sample; its json names garment and prompt."""
    split, number = clip
    rng = np.random.default_rng(hashed_seed("garments_spoken", seed, split, number))
    images, labels = read_garments(garments, split)
    reader, numbers = read_prompts(prompts, split)
    seen, heard = int(rng.integers(len(FASHION_CLASSES))), int(rng.integers(len(LANGUAGES)))
    garment = int(rng.choice(np.flatnonzero(labels == seen)))
    prompt = int(rng.choice(numbers[heard]))
    sound = sound_window(read_sound(reader.read(prompt)["wav"], RATE), SAMPLES, rng.uniform())
    return {
        "__key__": f"{split}-{number:06d}",
        "mp4": encode_clip(moving_image(images[garment], SIDE, rng), FPS, sound, RATE),
        "json": {
            "labels": [seen, len(FASHION_CLASSES) + heard],
            "seconds": FRAMES / FPS,
            "garment": garment,
            "prompt": reader.keys[prompt],
        },
    }
