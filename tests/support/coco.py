"""Small folders as COCO's: rectangles whose colours tell their categories."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from torch import Tensor

from datamodules import ByteArrayDataModule
from datamodules.detection.coco import Coco
from datamodules.detection.masks import decode_rle, encode_rle

CATEGORIES = {1: "cat", 3: "dog", 90: "tea pot"}
SIDE = 64
COLOURS = {1: (250, 0, 0), 3: (0, 250, 0), 90: (0, 0, 250)}


def rectangle(image_id: int, category: int, box: tuple[int, int, int, int], kind: str, size: tuple[int, int], **more):
    """An annotation of a filled rectangle x, y, width, height, its mask written as polygon or RLE."""
    x, y, w, h = box
    mask = np.zeros(size, bool)
    mask[y : y + h, x : x + w] = True
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    segmentation = encode_rle(mask) if kind == "rle" else polygon
    return {
        "image_id": image_id, "category_id": category, "bbox": list(box), "area": w * h, "iscrowd": 0,
        "segmentation": segmentation, **more,
    }  # fmt: skip


def write_split(folder: Path, name: str, sizes: list[tuple[int, int]], annotations: list[dict]) -> None:
    """Black images of (rows, columns) with the annotated boxes filled in their category's colour."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images = []
    for number, (height, width) in enumerate(sizes, start=1):
        pixels = np.zeros((height, width, 3), np.uint8)
        for thing in annotations:
            if thing["image_id"] == number:
                x, y, w, h = thing["bbox"]
                pixels[y : y + h, x : x + w] = COLOURS[thing["category_id"]]
        Image.fromarray(pixels).save(folder / name / f"{number:04d}.png")
        images.append({"id": number, "file_name": f"{number:04d}.png", "height": height, "width": width})
    content = {
        "images": images[::-1],
        "annotations": [{"id": n, **thing} for n, thing in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": text} for number, text in CATEGORIES.items()],
    }
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def write_coco(folder: Path) -> Path:
    """8 training images of a red and a blue box, polygon and RLE; 3 of validation, the second without annotations, the third
    with a crowd."""
    size = (60, 90)
    train = []
    for number in range(1, 9):
        train += [
            rectangle(number, 1, (10, 12, 30, 20), "polygon", size),
            rectangle(number, 90, (50, 20 + number, 25, 30), "rle", size),
        ]
    write_split(folder, "train2017", [size] * 8, train)
    sizes = [(64, 32), (48, 64), (64, 64)]
    val = [
        rectangle(1, 3, (4, 6, 20, 30), "polygon", sizes[0]),
        rectangle(3, 90, (0, 0, 64, 16), "rle", sizes[2], iscrowd=1),
        rectangle(3, 1, (8, 24, 16, 32), "polygon", sizes[2]),
    ]
    write_split(folder, "val2017", sizes, val)
    return folder


def data_of(folder: Path, **options) -> Coco:
    options = {
        "side": SIDE,
        "held_out": 3,
        "categories": CATEGORIES,
        "bands": 2,
        "batch_size": 2,
        "num_workers": 0,
    } | options
    return Coco(str(folder), **options)


def targets(data: ByteArrayDataModule, split: str = "test") -> dict[str, dict]:
    """The targets of a split's images by key, without padding."""
    batches = [data.flatten(compact) for compact in data.loader(split)]
    return {
        key: target
        for batch in batches
        for key, target, weight in zip(batch.keys, batch.target, batch.weight, strict=True)
        if weight
    }


def perfect(target: dict) -> dict[str, Tensor]:
    """The objects of an evaluation image, crowds left out, as a perfect detector would give them."""
    items = [item for item in target["annotations"].items if not item.crowd]
    height, width = target["size"].tolist()
    masks = np.zeros((len(items), height, width), bool)
    for mask, item in zip(masks, items, strict=True):
        outlines: Any = item.segmentation
        rle: Any = (
            coco_masks.merge(coco_masks.frPyObjects(outlines, height, width)) if isinstance(outlines, list) else None
        )
        mask[:] = coco_masks.decode(rle) if rle else decode_rle(outlines)
    corners = [(x, y, x + w, y + h) for x, y, w, h in (item.bbox for item in items)]
    return {
        "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([item.label for item in items], dtype=torch.long),
        "scores": torch.ones(len(items)),
        "masks": torch.from_numpy(masks),
    }
