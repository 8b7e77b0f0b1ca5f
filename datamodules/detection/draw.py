"""Images with their boxes and masks drawn in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..core.datamodule import SplitName
from .coco import Coco
from .targets import unpack_target


def save_picture(data: Coco, path: Path, split: SplitName = "test", count: int = 12) -> None:
    """Draws the first images of a split, as a model gets them, with boxes, classes and masks into one PNG."""
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid, save_image

    zoom = max(1, 384 // data.side)  # to make the names readable
    drawn = []
    for index in range(min(count, len(data.split(split).keys))):
        sample = data.split(split).load(index, torch.Generator())
        target = unpack_target(sample["target"], data.side, torch.device("cpu"))
        image, masks = (
            pixels.repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2)
            for pixels in (sample["image"].permute(2, 0, 1), target["masks"])
        )
        names = [data.spec.classes[label] for label in target["labels"]]
        colours: Any = ["orange", "cyan", "lime", "magenta", "yellow", "red", "white", "pink"]
        colours = [colours[number % len(colours)] for number in range(len(names))]
        if names:
            image = draw_segmentation_masks(image, masks, alpha=0.4, colors=colours)
            image = draw_bounding_boxes(image, target["boxes"] * zoom, names, colors=colours)
        drawn.append(image)
    save_image(make_grid(torch.stack(drawn).float() / 255, nrow=4), path)
