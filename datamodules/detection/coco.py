"""Object detection on COCO folders, at a fixed input size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.byte_array import DataSpec
from ..core.checks import check_range, read_bytes
from ..core.datamodule import ByteArrayDataModule, Split, SplitName
from ..core.errors import BadSampleError, UserError, reason
from ..core.flatten import GridModality
from ..core.order import epoch_order
from ..images.imagenet import IMAGENET_MEAN, IMAGENET_STD
from ..images.transforms import decode_image
from ..storage import shards
from .annotations import COCO_CATEGORIES, Instances, annotation_file
from .placement import Augmentation, Placement, fit, place_mask
from .targets import Annotation, Annotations, DetectionFlatten

PADDING = tuple(map(round, IMAGENET_MEAN))  # nearly zero after normalisation


class CocoSplit(Split):
    """Images of an annotation file with their objects.

    A sample has `image` (side, side, 3) uint8; `extent` (2,), its rows and columns without padding; and a compact `target`,
    which DetectionFlatten unpacks: `objects` (n, 7) with x0, y0, x1, y1, label, crowd and area; `crops`, the concatenated
    pixels of their masks; and `windows`, the (top, left, height, width) of each crop.

    Args:
        images: folder of the images.
        instances: the annotation file.
        rows: indices of the images in the annotation file.
        side: height and width of the input.
        category_ids: category id of every label.
        augmentation: for training; None for evaluation.
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
        placement = augment.draw(size, self.side, generator) if augment else fit(size, self.side)
        canvas = np.full((self.side, self.side, 3), PADDING, np.uint8)
        canvas[: placement.shown[0], : placement.shown[1]] = placement.pixels(image.numpy())
        target = {
            **self.objects(record["objects"], placement),
            "image_id": record["id"],
            "size": size,
            "scale": placement.scale,
        }
        if augment is None:
            target["annotations"] = self.annotations(record["objects"])
        return {"image": torch.from_numpy(canvas), "extent": torch.tensor(placement.shown), "target": target}

    def annotations(self, objects: list[dict]) -> Annotations:
        """The objects as annotated, in pixels of the original image."""
        return Annotations(
            Annotation(item["bbox"], self.labels[item["category"]], item["crowd"], item["area"], item["segmentation"])
            for item in objects
        )

    def objects(self, objects: list[dict], placement: Placement) -> dict[str, Any]:
        """The objects on the canvas, without empty boxes; in training, without boxes of up to one pixel."""
        smallest = 1.0 if self.augmentation else 0.0
        table, windows, crops = [], [], [np.zeros(0, bool)]
        for item in objects:
            x0, y0, x1, y1 = item["box"]
            box = placement.box(item["box"])
            # also drops boxes with NaN
            if not (x1 > x0 and y1 > y0 and (box[2:] - box[:2]).min() > smallest):
                continue
            try:
                window, crop = place_mask(item, placement)
            except Exception as error:  # anything may be written there
                raise BadSampleError(f"mask of annotation {item['id']} cannot be read: {reason(error)}") from error
            table.append([*box, self.labels[item["category"]], item["crowd"], item["area"]])
            windows.append(window)
            crops.append(crop.ravel())
        return {
            "objects": torch.tensor(table, dtype=torch.float32).reshape(-1, 7),
            "windows": windows,
            "crops": torch.from_numpy(np.concatenate(crops)),
        }


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """Reads an image (*size, 3) uint8. Raises BadSampleError if it is missing, damaged or of another size."""
    try:
        image = decode_image(read_bytes(path))
    except (OSError, BadSampleError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise BadSampleError(f"{path} is missing" if missing else f"{path} {error}") from error
    if tuple(image.shape[:2]) != size:
        raise BadSampleError(f"{path} is {image.shape[0]}x{image.shape[1]}, but {size[0]}x{size[1]} in the annotations")
    return image


class Coco(ByteArrayDataModule):
    """Object detection on a COCO folder.

    For each split NAME, images are in DIR/NAME and objects in DIR/annotations/instances_NAME.json. Images are resized to fit
    side x side with their aspect ratio preserved, and padded at the right and the bottom. A byte array has side * side
    elements, and its mask is False for padding. See DetectionFlatten for the targets. Label k is category_ids[k] in the
    annotation file.

    Args:
        data_dir: the folder, filled by `python -m datamodules.prepare coco`.
        side: height and width of the input in pixels.
        train: name of the training split.
        val: name of the val split; None takes `held_out` training images, the same for every seed.
        test: name of the test split.
        held_out: number of training images in val if there is no val split.
        categories: name of every class by its id; None for COCO's 80.
        scale_jitter: range of the factor that scales training images relative to fitting the input.
        flip: whether to flip training images left to right with probability 0.5.
        bands: frequencies per axis of the Fourier features.
        batch_size: samples per step, over all ranks.
        num_workers: worker processes per rank; 0 loads in the training process.
        kwargs: see ByteArrayDataModule.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, **kwargs)
        low, high = scale_jitter
        check_range(0, held_out=held_out)
        if not 0 < low <= high < math.inf:
            raise UserError(f"scale_jitter {list(scale_jitter)}: use two positive factors, the smaller one first")
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
        """The category id of every label."""
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
                raise UserError(
                    f"cannot hold out {self.held_out} of {len(rows)} training images: change --data.held_out"
                )
            order = epoch_order(len(rows), seed=0, epoch=0)
            rows = sorted(order[self.held_out :] if name == "train" else order[: self.held_out])
        augmentation = self.augmentation if name == "train" else None
        return CocoSplit(folder, instances, rows, self.side, self.category_ids, augmentation)

    def fingerprint(self) -> str:
        """A hash of names, sizes and bytes of all files; without the bytes of images above `shards.MAX_REHASHED` in total."""
        digest = hashlib.sha256()
        images = []
        for name in sorted(set(self.names.values())):
            digest.update(read_bytes(annotation_file(self.data_dir, name)))
            images += [self.data_dir / name / file for file in self.instances(name).files]
        sizes = [path.stat().st_size if path.is_file() else None for path in images]
        read = sum(filter(None, sizes)) <= shards.MAX_REHASHED
        for path, size in zip(images, sizes, strict=True):
            digest.update(f"{path.parent.name}/{path.name} {size}\n".encode())
            if read and size is not None:
                digest.update(path.read_bytes())
        return digest.hexdigest()
