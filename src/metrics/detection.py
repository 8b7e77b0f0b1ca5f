"""Average precision and recall of boxes and masks as COCO defines them, in pixels of the original images, by pycocotools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, distributed

from datamodules.detection.targets import Annotation

SIZES = ("small", "medium", "large")
# in the order of COCOeval's statistics
STATISTICS = (
    *("map", "map_50", "map_75", *(f"map_{size}" for size in SIZES)),
    *("mar_1", "mar_10", "mar_100", *(f"mar_{size}" for size in SIZES)),
)
Kind = Literal["bbox", "segm"]
KINDS: dict[Kind, str] = {"bbox": "", "segm": "segm_"}  # of COCO: boxes and masks, and the prefix of their metrics


@dataclass(frozen=True)
class Image:
    """An image with its annotated and its detected objects, in COCO's format but for category_id, which is the label."""

    id: int
    size: tuple[int, int]
    annotated: list[dict[str, Any]]
    detected: list[dict[str, Any]]


class DetectionMetrics:
    """COCO's statistics of boxes and masks, computed by pycocotools, the same on any number of ranks.

    map (mean over IoU 0.50 to 0.95), map_50, map_75, and map_small, map_medium, map_large of objects below 32 x 32 pixels, up
    to 96 x 96 and larger; mar_1, mar_10, mar_100, the recall with as many detections of a class in an image, and mar_small,
    mar_medium, mar_large; the same of masks as segm_map, ...; samples. -1 where no object has the size. A detection of an
    object in a crowd counts neither as right nor as wrong.
    """

    definition = "COCO's average precision and recall of boxes and masks, by pycocotools' COCOeval"

    def __init__(self) -> None:
        self.images: list[Image] = []

    def update(self, found: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Any]]) -> None:
        """Add images.

        Args:
            found: boxes (n, 4), labels (n,) from 0, scores (n,) and masks (n, rows, columns) bool of every image, in pixels
                of the original.
            targets: those of an evaluation batch, in the same order.
        """
        for each, target in zip(found, targets, strict=True):
            number, (height, width) = int(target["image_id"]), target["size"].tolist()
            annotated = [annotation(item, number) for item in target["annotations"].items]
            self.images.append(Image(number, (height, width), annotated, detections(each, number)))

    def compute(self) -> dict[str, Tensor]:
        """The values by name, float64."""
        images, values = self.of_all_ranks(), {}
        objects = (item for image in images for item in image.annotated)
        annotations = [{**item, "id": number} for number, item in enumerate(objects, start=1)]
        labels = {item["category_id"] for image in images for item in (*image.annotated, *image.detected)}
        with redirect_stdout(StringIO()):  # pycocotools reports every step
            truth: Any = coco(images, labels, annotations)
            for kind, prefix in KINDS.items():
                found = results(images, kind)
                # loadRes cannot take an empty list
                evaluation: Any = COCOeval(truth, truth.loadRes(found) if found else coco(images, labels, []), kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                statistics = torch.from_numpy(np.asarray(evaluation.stats))
                values |= {f"{prefix}{name}": value for name, value in zip(STATISTICS, statistics, strict=True)}
        return {**values, "samples": torch.tensor(len(images))}

    def reset(self) -> None:
        self.images = []

    def predictions(self, category_ids: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        """The detections of all ranks in COCO's format of results: those of boxes as bbox and those of masks as segm.

        They are two lists because pycocotools' loadRes takes the area of an object from its box wherever it has one, and
        the area says whether a mask is small, medium or large.

        Args:
            category_ids: the id of every label.
        """
        images = self.of_all_ranks()
        return {
            kind: [{**item, "category_id": category_ids[item["category_id"]]} for item in results(images, kind)]
            for kind in KINDS
        }

    def of_all_ranks(self) -> list[Image]:
        """The images of all ranks by their ids, whatever the number of ranks."""
        images = self.images
        if distributed.is_available() and distributed.is_initialized():
            ranks: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(ranks, images)
            images = [image for rank in ranks for image in rank]
        return sorted(images, key=lambda image: image.id)


def annotation(item: Annotation, image_id: int) -> dict[str, Any]:
    """An annotated object as in an annotation file. Without segmentation it fills its box."""
    x, y, width, height = item.bbox
    right, bottom = x + width, y + height
    return {
        "image_id": image_id,
        "category_id": item.label,
        "bbox": [x, y, width, height],
        "area": item.area,
        "iscrowd": int(item.crowd),
        "segmentation": item.segmentation or [[x, y, right, y, right, bottom, x, bottom]],
    }


def detections(found: dict[str, Tensor], image_id: int) -> list[dict[str, Any]]:
    """What was found in an image, with bbox (x, y, width, height) and segmentation (compressed RLE)."""
    boxes = found["boxes"].cpu().double()
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    masks: Any = coco_masks.encode(np.asfortranarray(found["masks"].cpu().permute(1, 2, 0).numpy().astype(np.uint8)))
    return [
        {
            "image_id": image_id,
            "category_id": label,
            "score": score,
            "bbox": box,
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
        }
        for label, score, box, mask in zip(
            found["labels"].tolist(), found["scores"].tolist(), boxes.tolist(), masks, strict=True
        )
    ]


def results(images: Iterable[Image], kind: Kind) -> list[dict[str, Any]]:
    """The detections in some images with boxes alone (bbox) or masks alone (segm)."""
    left_out = "segmentation" if kind == "bbox" else "bbox"
    return [{k: v for k, v in item.items() if k != left_out} for image in images for item in image.detected]


def coco(images: Iterable[Image], labels: Iterable[int], annotations: list[dict[str, Any]]) -> COCO:
    """pycocotools' annotation file, made in memory."""
    made: Any = COCO()
    made.dataset = {
        "images": [{"id": image.id, "height": image.size[0], "width": image.size[1]} for image in images],
        "categories": [{"id": label} for label in sorted(labels)],
        "annotations": annotations,
    }
    made.createIndex()
    return made
