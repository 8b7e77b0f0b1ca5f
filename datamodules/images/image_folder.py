"""ImageNet as a folder: its pictures, their classes, and the splits that are made of them.

ROOT/train/n01440764/n01440764_10026.JPEG
ROOT/val/n01440764/ILSVRC2012_val_00000293.JPEG, or ROOT/val/ILSVRC2012_val_00000293.JPEG with a list of classes:
ROOT/val.txt or ROOT/LOC_val_solution.csv       one line per picture: its name, then the folder name of its class or
                                                its number among the sorted ones
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.errors import UserError
from ..core.order import epoch_order

SUFFIXES = (".jpeg", ".jpg", ".png")
LISTS = ("val.txt", "LOC_val_solution.csv")
HELD_OUT = 10_000  # training pictures for choosing; a tenth of smaller sets


class Picture(NamedTuple):
    """A file, by its path under the root, and the number of its class."""

    path: str
    label: int

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[0].replace(".", "_")


def class_names(root: Path) -> list[str]:
    """The folders of ROOT/train, sorted: a class's label is its place."""
    return sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir())


def list_splits(root: Path, classes: Sequence[str]) -> dict[str, list[Picture]]:
    """The pictures of train, val (held out of the training pictures by one draw for all runs) and test (the official
    validation pictures), each in a shuffled order that is always the same."""
    training = list(in_class_folders(root, "train", classes))
    if not training:
        raise UserError(f"{root / 'train'} has no pictures in {', '.join(classes[:3])}, ...: is it ImageNet?")
    official = list(validation(root, classes))
    order = epoch_order(len(training), seed=0, epoch=0)
    held_out = min(HELD_OUT, len(training) // 10)
    return {
        "train": [training[place] for place in order[held_out:]],
        "val": [training[place] for place in order[:held_out]],
        "test": [official[place] for place in epoch_order(len(official), seed=0, epoch=0)],
    }


def in_class_folders(root: Path, part: str, classes: Sequence[str]) -> Iterator[Picture]:
    for label, name in enumerate(classes):
        folder = root / part / name
        if not folder.is_dir():
            raise UserError(f"{folder} is missing, although {name} is one of the classes: complete the folder")
        for file in picture_names(folder):
            yield Picture(f"{part}/{name}/{file}", label)


def picture_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def validation(root: Path, classes: Sequence[str]) -> Iterator[Picture]:
    if not (root / "val").is_dir():
        raise UserError(f"{root / 'val'} is missing: it holds the official validation pictures, the test split here")
    if any((root / "val" / name).is_dir() for name in classes):
        yield from in_class_folders(root, "val", classes)
        return
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{root / 'val'} has no folder per class, so their list is needed: {' or '.join(LISTS)} beside it"
        )
    label_of = read_list(path, classes)
    for file in picture_names(root / "val"):
        label = label_of.get(Path(file).stem)
        if label is None:
            raise UserError(f"{path} has no line for {file}: complete it")
        yield Picture(f"val/{file}", label)


def read_list(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """The label of every picture of a list, by the picture's name without suffix."""
    numbers = {name: label for label, name in enumerate(classes)}
    numbers |= {str(label): label for label in range(len(classes))}
    labels = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        name, label, *_ = [*re.split(r"[,\s]+", line.strip()), "", ""]
        if label in numbers:
            labels[Path(name).stem] = numbers[label]
        elif name and number > 1:  # the first line may be a heading
            raise UserError(f"{path}, line {number}: {label!r} is none of the {len(classes)} classes of train")
    return labels


def fingerprint(root: Path, pictures: Sequence[Picture], read_up_to: int) -> str:
    """A hash of names, labels and bytes; of more than `read_up_to` bytes in all, sizes stand for the bytes."""
    sizes = [(root / picture.path).stat().st_size for picture in pictures]
    digest = hashlib.sha256()
    read = sum(sizes) <= read_up_to
    for picture, size in zip(pictures, sizes, strict=True):
        digest.update(repr((picture.path, picture.label, size)).encode())
        if read:
            digest.update((root / picture.path).read_bytes())
    return digest.hexdigest()
