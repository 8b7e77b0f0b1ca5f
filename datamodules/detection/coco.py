"""Objects in images: COCO folders (boxes, masks, crowd) at a fixed input size, and the composed scenes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.byte_array import DataSpec
from ..core.datamodule import ByteArrayDataModule, Split, SplitName
from ..core.errors import BadSampleError, UserError
from ..core.flatten import GridModality
from ..core.order import epoch_order
from ..images.imagenet import IMAGENET_MEAN, IMAGENET_STD
from ..images.transforms import decode_image
from ..storage import shards
from .annotations import COCO_CATEGORIES, Instances, annotation_file
from .placement import Augmentation, Placement, place, place_mask
from .targets import DetectionFlatten

PADDING = tuple(map(round, IMAGENET_MEAN))  # nearly zero once normalised


class CocoSplit(Split):
    """Images of an annotation file with their objects; `augmentation` None for evaluation.

    A sample has `image` (side, side, 3) uint8, `extent` (2,), the rows and columns of it that are no padding, and a compact
    `target`, which DetectionFlatten unpacks: objects (n, 7), x0, y0, x1, y1, label, crowd and area; their masks' pixels one
    after the other, and the windows (top, left, height, width) that these fill.
    """

    def __init__(
        self,
        images: Path,
        instances: Instances,
        rows: Sequence[int],
        side: int,
        category_ids: Sequence[int],
        augmentation: Augmentation | None,
    ) -> None:
        self.images, self.instances, self.rows, self.side = images, instances, rows, side
        self.labels = {number: label for label, number in enumerate(category_ids)}
        self.augmentation = augmentation
        self.keys = [f"{images.name}/{instances.files[row]}" for row in rows]

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        record = self.instances[self.rows[index]]
        size = (record["height"], record["width"])
        image = read_image(self.images / record["file_name"], size)
        augment = self.augmentation
        where = augment.draw(size, self.side, generator) if augment else place(size, self.side)
        canvas = np.full((self.side, self.side, 3), PADDING, np.uint8)
        canvas[: where.shown[0], : where.shown[1]] = where.pixels(image.numpy())
        target = {
            **self.objects(record["objects"], where),
            "image_id": record["id"],
            "size": size,
            "scale": where.scale,
        }
        if augment is None:
            target["annotated"] = self.annotated(record["objects"])
        return {"image": torch.from_numpy(canvas), "extent": torch.tensor(where.shown), "target": target}

    def annotated(self, objects: list[dict]) -> str:
        """The objects as the file has them. One string, since loaders and devices walk through lists number by number."""
        return json.dumps([{**thing, "label": self.labels[thing["category"]]} for thing in objects])

    def objects(self, objects: list[dict], where: Placement) -> dict[str, Any]:
        """The objects on the canvas. Those without width or height are dropped, in training also those of a pixel or less."""
        least = 1.0 if self.augmentation else 0.0
        table, windows, crops = [], [], [np.zeros(0, bool)]
        for thing in objects:
            x0, y0, x1, y1 = thing["box"]
            box = where.box(thing["box"])
            if not (x1 > x0 and y1 > y0 and (box[2:] - box[:2]).min() > least):  # so what is no number goes too
                continue
            try:
                window, crop = place_mask(thing, where)
            except (KeyError, TypeError, ValueError) as error:
                raise BadSampleError(f"mask of annotation {thing['id']} cannot be read: {error}") from error
            table.append([*box, self.labels[thing["category"]], thing["crowd"], thing["area"]])
            windows.append(window)
            crops.append(crop.ravel())
        return {
            "objects": torch.tensor(table, dtype=torch.float32).reshape(-1, 7),
            "windows": windows,
            "crops": torch.from_numpy(np.concatenate(crops)),
        }


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture file as (*size, 3) uint8. Raises BadSampleError where it is missing, broken or of another size."""
    try:
        image = decode_image(path.read_bytes())
    except (OSError, BadSampleError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise BadSampleError(f"{path} is missing" if missing else f"{path} {error}") from error
    if tuple(image.shape[:2]) != size:
        raise BadSampleError(f"{path} is {image.shape[0]}x{image.shape[1]}, the annotations say {size[0]}x{size[1]}")
    return image


class Coco(ByteArrayDataModule):
    """A COCO folder: images in DIR/NAME, objects in DIR/annotations/instances_NAME.json, for each NAME of a split.

    Images are resized into side x side with their aspect ratio kept and padded at the right and the bottom; a byte array has
    side * side elements, its mask tells the padding. Targets: see DetectionFlatten. Label k is category_ids[k] in the file.

    data_dir: the folder; `python -m datamodules.prepare coco` fills it.
    train, val, test: names of the splits. Where val is left out, `held_out` training images, the same for every seed, are
        taken for it.
    categories: id and name of every class; COCO's 80 if left out.
    scale_jitter: range of the factor by which training images are larger than fits.
    flip: flip half of the training images left to right.
    bands: frequencies per axis of the Fourier features.
    """

    def __init__(
        self,
        data_dir: str = "data/coco",
        side: int = 512,
        train: str = "train2017",
        val: str | None = None,
        test: str = "val2017",
        held_out: int = 5000,
        categories: dict[int, str] | None = None,
        scale_jitter: tuple[float, float] = (0.1, 2.0),
        flip: bool = True,
        bands: int = 16,
        batch_size: int = 16,
        num_workers: int = 2,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        low, high = scale_jitter
        if not 0 < low <= high:
            raise UserError(f"scale_jitter {list(scale_jitter)}: give two factors above 0, the smaller one first")
        self.data_dir, self.side, self.held_out = Path(data_dir), side, held_out
        self.names = {"train": train, "val": val or train, "test": test}
        self.augmentation = Augmentation((low, high), flip)
        self.categories = dict(sorted((categories or COCO_CATEGORIES).items()))
        image = GridModality((side, side), channels=3, bands=bands, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.flatten = DetectionFlatten({"image": image})
        self.spec = DataSpec({"image": image.spec}, "detection", tuple(self.categories.values()))
        self._read: dict[str, Instances] = {}

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The id in the annotation files of every label."""
        return tuple(self.categories)

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare coco --source DIR --out {self.data_dir}"

    def instances(self, name: str) -> Instances:
        if name not in self._read:
            self._read[name] = Instances(annotation_file(self.data_dir, name), self.categories, self.how_to_make)
        return self._read[name]

    def make_split(self, name: SplitName) -> Split:
        folder = self.data_dir / self.names[name]
        if not folder.is_dir():
            raise UserError(f"{folder} is missing: run `{self.how_to_make}`, or set --data.data_dir")
        instances = self.instances(self.names[name])
        rows = list(range(len(instances.files)))
        if self.names["train"] == self.names["val"] and name != "test":
            if not 0 < self.held_out < len(rows):
                raise UserError(f"held_out {self.held_out} of {len(rows)} training images: set --data.held_out")
            order = epoch_order(len(rows), seed=0, epoch=0)
            rows = sorted(order[self.held_out :] if name == "train" else order[: self.held_out])
        augmentation = self.augmentation if name == "train" else None
        return CocoSplit(folder, instances, rows, self.side, self.category_ids, augmentation)

    def fingerprint(self) -> str:
        """Of names, sizes and bytes of all files; of more than `shards.READ_ANEW` bytes of images, not of their bytes."""
        digest = hashlib.sha256()
        images = []
        for name in sorted(set(self.names.values())):
            digest.update(annotation_file(self.data_dir, name).read_bytes())
            images += [self.data_dir / name / file for file in self.instances(name).files]
        sizes = [path.stat().st_size if path.is_file() else None for path in images]
        read = sum(filter(None, sizes)) <= shards.READ_ANEW
        for path, size in zip(images, sizes, strict=True):
            digest.update(f"{path.parent.name}/{path.name} {size}\n".encode())
            if read and size is not None:
                digest.update(path.read_bytes())
        return digest.hexdigest()
