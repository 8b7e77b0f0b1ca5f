"""Targets of detection: unpacked on the device, and back to the original image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.byte_array import Batch
from ..core.flatten import Flatten


class DetectionFlatten(Flatten):
    """As Flatten; the image's mask tells padding, and targets become what detectors of torchvision take:

    boxes (n, 4), x0, y0, x1, y1 in input pixels; labels (n,) from 0; masks (n, side, side) bool; iscrowd (n,) bool; area
    (n,) in pixels of the original, as annotated; image_id (); size (2,), rows and columns of the original; scale (2,),
    input pixels per original pixel, along rows and along columns. In evaluation also `annotated`, JSON: every object with
    box, label, crowd, area and segmentation as in the file, in pixels of the original, for metrics.
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
    return unpacked | ({"annotated": target["annotated"]} if "annotated" in target else {})


def to_original(boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Boxes (n, 4) in input pixels of an evaluation sample, in pixels of its original image."""
    return boxes / target["scale"].flip(0).repeat(2)
