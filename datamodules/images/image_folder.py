"""ImageNet as a folder: its images, classes and splits.

ROOT/train/n01440764/n01440764_10026.JPEG
ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG, or ROOT/val/ILSVRC2012_val_00000293.JPEG with a list of labels:
ROOT/val.txt or ROOT/LOC_val_solution.csv       one line per image: its name, then the folder name of its class or the
                                                index of that name among the sorted ones
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.checks import read_bytes
from ..core.errors import UserError
from ..core.order import epoch_order

SUFFIXES = (".jpeg", ".jpg", ".png")
LISTS = ("val.txt", "LOC_val_solution.csv")
HELD_OUT = 10_000  # training images for val; a tenth of smaller data sets


class Picture(NamedTuple):
    """An image file, by its path relative to the root, and its label. Shards hash its repr, so its names are fixed."""

    path: str
    label: int

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[0].replace(".", "_")


def class_names(root: Path) -> list[str]:
    """The folders of ROOT/train, sorted; the label of a class is its index."""
    return sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir())


def list_splits(root: Path, classes: Sequence[str]) -> dict[str, list[Picture]]:
    """The images of train, val (held out from the training images, the same ones in all runs) and test (the official
    validation images), each in a fixed shuffled order."""
    training = list(in_class_folders(root, "train", classes))
    if not training:
        raise UserError(f"{root / 'train'} has no images in {', '.join(classes[:3])}, ...: is it ImageNet?")
    official = list(validation(root, classes))
    order = epoch_order(len(training), seed=0, epoch=0)
    held_out = min(HELD_OUT, len(training) // 10)
    return {
        "train": [training[index] for index in order[held_out:]],
        "val": [training[index] for index in order[:held_out]],
        "test": [official[index] for index in epoch_order(len(official), seed=0, epoch=0)],
    }


def in_class_folders(root: Path, part: str, classes: Sequence[str]) -> Iterator[Picture]:
    for label, name in enumerate(classes):
        folder = root / part / name
        if not folder.is_dir():
            raise UserError(f"{folder} is missing, but {name} is one of the classes: add the folder")
        for file in image_names(folder):
            yield Picture(f"{part}/{name}/{file}", label)


def image_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def validation(root: Path, classes: Sequence[str]) -> Iterator[Picture]:
    if not (root / "val").is_dir():
        raise UserError(f"{root / 'val'} is missing: it should hold the official validation images, the test split")
    if any((root / "val" / name).is_dir() for name in classes):
        yield from in_class_folders(root, "val", classes)
        return
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise UserError(f"{root / 'val'} has no class folders: put a list of labels next to it, {' or '.join(LISTS)}")
    label_of = read_list(path, classes)
    for file in image_names(root / "val"):
        label = label_of.get(Path(file).stem)
        if label is None:
            raise UserError(f"{path} has no line for {file}: add it")
        yield Picture(f"val/{file}", label)


def read_list(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Reads the label of every listed image, by the image's name without suffix."""
    numbers = {name: label for label, name in enumerate(classes)}
    numbers |= {str(label): label for label in range(len(classes))}
    labels = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        name, label, *_ = [*re.split(r"[,\s]+", line.strip()), "", ""]
        if label in numbers:
            labels[Path(name).stem] = numbers[label]
        elif name and number > 1:  # the first line may be a header
            raise UserError(f"{path}, line {number}: {label!r} is not one of the {len(classes)} classes of train")
    return labels


def fingerprint(root: Path, images: Sequence[Picture], read_up_to: int) -> str:
    """A hash of names, labels and bytes; of sizes instead of bytes if these exceed `read_up_to` in total."""
    sizes = [(root / image.path).stat().st_size for image in images]
    digest = hashlib.sha256()
    read = sum(sizes) <= read_up_to
    for image, size in zip(images, sizes, strict=True):
        digest.update(repr((image.path, image.label, size)).encode())
        if read:
            digest.update(read_bytes(root / image.path))
    return digest.hexdigest()
