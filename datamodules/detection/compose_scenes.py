"""Composes scenes of digits or garments, with exact boxes and masks, as a COCO folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.datamodule import SPLITS, Split, SplitName, TensorSplit
from ..core.order import hashed_seed
from ..core.progress import track
from ..images.digits import Digits
from ..images.fashion_mnist import FashionMNIST
from ..storage.files import write_json
from ..storage.workers import disk_errors_explained, one_at_a_time
from .annotations import annotation_file
from .masks import encode_rle

MAX_OBJECTS = 8
SHARE_EMPTY = 0.05
SIZES = (0.15, 0.45)  # of an object, relative to the side of the scene
MIN_VISIBLE = 0.5  # share of an object
TRANSPARENT = 50  # grey values up to this are not part of an object


def compose_scene(
    images: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Composes a scene (side, side, 3) uint8 of objects from `images` (n, h, w). Returns the scene, and the row in `images`
    and the visible mask (side, side) of each object.

    Objects cover earlier ones. An object that would leave less than half of another visible is left out.
    """
    shade = rng.uniform(20, 90) + rng.uniform(-30, 30, (2, 2, 3))  # the brightness varies from corner to corner
    across = np.linspace(0, 1, side)[:, None]
    rows = np.stack([1 - across, across], axis=-1)[:, 0]
    scene = np.einsum("ra,cb,abk->rck", rows, rows, shade) + rng.normal(0, 12, (side, side, 3))
    placed: list[tuple[int, np.ndarray, int]] = []  # row, visible mask, pixels of the whole object
    wanted = 0 if rng.random() < SHARE_EMPTY else int(rng.integers(1, MAX_OBJECTS + 1))
    for row in rng.integers(len(images), size=wanted):
        size = round(side * rng.uniform(*SIZES))
        top, left = rng.integers(side - size + 1, size=2)
        grey = np.asarray(Image.fromarray(images[row]).resize((size, size), Image.Resampling.BILINEAR))
        mask = np.zeros((side, side), bool)
        mask[top : top + size, left : left + size] = grey > TRANSPARENT
        remaining = [(other, seen & ~mask, whole) for other, seen, whole in placed]
        if not mask.any() or any(seen.sum() < MIN_VISIBLE * whole for _, seen, whole in remaining):
            continue
        placed = [*remaining, (int(row), mask, int(mask.sum()))]
        colour = rng.uniform(0.6, 1.0, 3)
        scene[mask] = grey[grey > TRANSPARENT][:, None] * colour
    return scene.clip(0, 255).astype(np.uint8), [(row, seen) for row, seen, _ in placed]


def annotation(mask: np.ndarray, **fields: int) -> dict:
    """The COCO annotation of a non-empty mask: its box x, y, width, height, its area and its run lengths."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    box = [left, top, right - left + 1, bottom - top + 1]
    return {**fields, "bbox": box, "area": int(mask.sum()), "iscrowd": 0, "segmentation": encode_rle(mask)}


def compose_split(folder: Path, split: SplitName, count: int, objects: Split, side: int) -> dict:
    """Writes the images of one split. Returns `images` and `annotations` in the format of COCO."""
    (folder / split).mkdir(exist_ok=True)
    assert isinstance(objects, TensorSplit)
    pixels, labels = objects.tensors["image"].numpy(), objects.tensors["target"].tolist()
    images: list[dict] = []
    annotations: list[dict] = []
    for number in track(range(1, count + 1), f"composing {split} scenes in {folder}", total=count, unit="scenes"):
        scene, placed = compose_scene(pixels, side, np.random.default_rng(hashed_seed("composed", split, number)))
        file = f"{number:06d}.jpg"
        Image.fromarray(scene).save(folder / split / file, quality=92)
        images.append({"id": number, "file_name": file, "height": side, "width": side})
        annotations += [
            annotation(mask, id=len(annotations) + place, image_id=number, category_id=labels[row] + 1)
            for place, (row, mask) in enumerate(placed, start=1)
        ]
    return {"images": images, "annotations": annotations}


def compose(folder: Path, of: str, scenes: Sequence[int], side: int, source: str = "data/fashion_mnist") -> None:
    """Writes a COCO folder, unless it exists. The objects of a split come from the same split. Category k + 1 is class k.

    Args:
        folder: where to write.
        of: digits (scikit-learn) or garments (Fashion-MNIST).
        scenes: number of scenes in train, val and test.
        side: height and width of the scenes.
        source: the folder of Fashion-MNIST.
    """
    data = Digits() if of == "digits" else FashionMNIST(source)
    objects = {split: data.split(split) for split in SPLITS}
    folder.mkdir(parents=True, exist_ok=True)
    with disk_errors_explained(folder), one_at_a_time(folder):
        if annotation_file(folder, "test").is_file():  # written while waiting for the lock
            return
        contents = {
            split: compose_split(folder, split, count, objects[split], side)
            for split, count in zip(SPLITS, scenes, strict=True)
        }
        info = {"description": f"scenes composed of {of}", "of": of, "scenes": list(scenes), "side": side}
        categories = [{"id": number, "name": name} for number, name in enumerate(data.spec.classes, start=1)]
        os.sync()  # the images, before the files that say that they are complete
        (folder / "annotations").mkdir(exist_ok=True)
        for split, content in contents.items():  # last: without that of test, the folder is unfinished
            write_json(annotation_file(folder, split), {"info": info, "categories": categories, **content}, None)
        (folder / ".lock").unlink()
