"""Average precision of boxes and masks as COCO defines it, in pixels of the original images, and COCO's file of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_masks
from torch import Tensor, distributed
from torchmetrics.detection.mean_ap import MeanAveragePrecision

from datamodules.detection.masks import decode_rle
from datamodules.detection.targets import Annotation

SHARES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


class DetectionMetrics(MeanAveragePrecision):
    """torchmetrics' AP, exact on any number of ranks; pycocotools computes it.

    map (mean over IoU 0.50 to 0.95), map_50, map_75, and map_small, map_medium, map_large of objects below 32 x 32 pixels, up
    to 96 x 96 and larger; the same of masks as segm_map, ...; samples. -1 where no object has the size, as in COCO. A
    detection of an object in a crowd counts neither as right nor as wrong.
    """

    definition = "COCO's average precision of boxes and masks, by pycocotools"
    image_ids: list[Tensor]

    def __init__(self) -> None:
        super().__init__(iou_type=("bbox", "segm"))
        self.warn_on_many_detections = False  # detectors give at most 100 an image, which is what COCO counts
        self.add_state("image_ids", default=[], dist_reduce_fx=None)

    def update(self, found: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Any]]) -> None:
        """found: boxes (n, 4), labels (n,) from 0, scores (n,) and masks (n, rows, columns) bool of every image, in pixels of
        the original; targets: those of an evaluation batch, in the same order."""
        super().update([{k: v.cpu() for k, v in f.items()} for f in found], [ground_truth(t) for t in targets])
        self.image_ids += [target["image_id"].cpu() for target in targets]

    def compute(self) -> dict[str, Tensor]:
        values = super().compute()
        chosen = {f"{kind}{name}": values[f"{kind or 'bbox_'}{name}"] for kind in ("", "segm_") for name in SHARES}
        return {**chosen, "samples": torch.tensor(len(self.image_ids))}

    def predictions(self, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """The detections of all ranks as COCO's results: image_id, category_id, bbox (x, y, width, height), score and
        segmentation (compressed RLE). category_ids: the id of every label."""
        with self.sync_context():
            images = zip(
                self.image_ids,
                self.detection_labels,
                self.detection_box,
                self.detection_scores,
                self.detection_mask,
                strict=True,
            )
            return [
                {
                    "image_id": int(image_id),
                    "category_id": category_ids[label],
                    "bbox": box,
                    "score": score,
                    "segmentation": {"size": list(size), "counts": runs.decode()},
                }
                for image_id, *found, masks in images
                for label, box, score, (size, runs) in zip(*(f.tolist() for f in found), masks, strict=True)
            ]

    def _sync_dist(self, dist_sync_fn: object = None, process_group: Any = None) -> None:
        """Join the lists of all ranks, whose lengths differ, in the order of the image ids, whatever the number of ranks."""
        states = {name: getattr(self, name) for name in self._defaults}
        ranks: list[Any] = [None] * distributed.get_world_size(process_group)
        distributed.all_gather_object(ranks, states, group=process_group)
        images = [row for rank in ranks for row in zip(*rank.values(), strict=True)]
        images.sort(key=lambda row: int(row[list(states).index("image_ids")]))
        for name, values in zip(states, zip(*images, strict=True) if images else ([] for _ in states), strict=True):
            setattr(self, name, list(values))


def ground_truth(target: dict[str, Any]) -> dict[str, Tensor]:
    """The annotated objects of an image as torchmetrics takes them: boxes, labels, masks, iscrowd and area."""
    height, width = target["size"].tolist()
    items = target["annotations"].items
    masks = torch.zeros(len(items), height, width, dtype=torch.uint8)
    for mask, item in zip(masks, items, strict=True):
        mask.copy_(torch.from_numpy(coco_mask(item, height, width)))
    return {
        "boxes": torch.tensor([item.box for item in items], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([item.label for item in items], dtype=torch.long),
        "masks": masks,
        "iscrowd": torch.tensor([item.crowd for item in items], dtype=torch.long),
        "area": torch.tensor([item.area for item in items], dtype=torch.float32),
    }


def coco_mask(item: Annotation, height: int, width: int) -> np.ndarray:
    """The mask (height, width) of an object, with polygons drawn by pycocotools. Without segmentation it fills its box."""
    x0, y0, x1, y1 = item.box
    segmentation = item.segmentation or [[x0, y0, x1, y0, x1, y1, x0, y1]]
    if isinstance(segmentation, list):
        drawn: Any = coco_masks.merge(coco_masks.frPyObjects(segmentation, height, width))
        segmentation = {"size": drawn["size"], "counts": drawn["counts"].decode()}
    return decode_rle(segmentation)
