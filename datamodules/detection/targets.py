"""Detection targets: unpacking on the device, annotations for metrics, and boxes in the original image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.byte_array import Batch
from ..core.flatten import Flatten


@dataclass(frozen=True)
class Annotation:
    """One object as annotated, in pixels of the original image.

    Args:
        bbox: x, y, width, height.
        label: index of the class.
        crowd: whether the object is a group of objects.
        area: area of the object.
        segmentation: polygons, COCO RLE, or None for an object that fills its box.
    """

    bbox: tuple[float, float, float, float]
    label: int
    crowd: bool
    area: float
    segmentation: list | dict | None


class Annotations:
    """All objects of an image as annotated.

    This is not a sequence or a dataclass, because Lightning and torch would visit every number when they move or pin a batch.
    """

    def __init__(self, items: Iterable[Annotation]) -> None:
        self.items = tuple(items)


class DetectionFlatten(Flatten):
    """Flatten for detection: masks the padding of images and unpacks targets to the format of torchvision's detectors.

    A target has boxes (n, 4), x0, y0, x1, y1 in input pixels; labels (n,) from 0; masks (n, side, side) bool; iscrowd (n,)
    bool; area (n,) in pixels of the original, as annotated; image_id (); size (2,), rows and columns of the original; and
    scale (2,), input pixels per original pixel along rows and columns. In evaluation it also has `annotations`, the
    Annotations of the original image for the metrics.
    """

    def forward(self, compact: dict) -> Batch:
        batch = super().forward(compact)
        image = batch.inputs["image"]
        side = compact["image"].shape[1]
        inside = torch.arange(side, device=image.values.device) < compact["extent"][..., None]  # (B, 2, side)
        mask = (inside[:, 0, :, None] & inside[:, 1, None, :]).flatten(1)
        target = [unpack_target(target, side, image.values.device) for target in compact["target"]]
        return replace(batch, inputs={"image": replace(image, mask=mask)}, target=target)


def unpack_target(target: dict, side: int, device: torch.device) -> dict[str, Any]:
    """Unpacks the compact target of one sample, see DetectionFlatten."""
    objects, crops = target["objects"].to(device), target["crops"].to(device)
    masks = torch.zeros(len(objects), side, side, dtype=torch.bool, device=device)
    parts = crops.split([height * width for _, _, height, width in target["windows"]])
    for mask, part, (top, left, height, width) in zip(masks, parts, target["windows"], strict=True):
        mask[top : top + height, left : left + width] = part.view(height, width)
    unpacked = {
        "boxes": objects[:, :4],
        "labels": objects[:, 4].long(),
        "masks": masks,
        "iscrowd": objects[:, 5].bool(),
        "area": objects[:, 6],
        "image_id": torch.tensor(target["image_id"], device=device),
        "size": torch.tensor(target["size"], device=device),
        "scale": torch.tensor(target["scale"], device=device),
    }
    return unpacked | {name: target[name] for name in ("annotations",) if name in target}


def to_original(boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Maps boxes (n, 4) of an evaluation sample from input pixels to pixels of the original image."""
    return boxes / target["scale"].flip(0).repeat(2)
