"""Detection of objects with boxes and masks: Mask R-CNN with a feature pyramid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from datamodules import Batch, ByteArray, DataSpec, UserError
from datamodules.core.checks import check_counts, check_range
from datamodules.detection.targets import to_original

from ..backbones.base import Backbone
from ..backbones.baselines import one_image
from ..metrics.detection import DetectionMetrics
from ..optim import Schedule
from .base import Task

BOX_CELLS, MASK_CELLS = 7, 14  # sides of what the heads see of a region
CONFIDENT = 0.5  # score of objects that are drawn
DETECTIONS = 100  # of an image that are kept, as many as COCO counts

Sizes = Sequence[tuple[int, int]]  # rows and columns


class CanvasRoIAlign(MultiScaleRoIAlign):
    """RoIAlign on maps of a canvas that pictures need not fill: torchvision infers the maps' strides from the pictures.

    Args:
        canvas: rows and columns of the input.
        levels: number of maps.
        cells: side of what is cut out.
    """

    def __init__(self, canvas: tuple[int, int], levels: int, cells: int) -> None:
        super().__init__([str(level) for level in range(levels)], cells, sampling_ratio=2)
        self.canvas = canvas

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes) -> Tensor:
        return super().forward(x, boxes, [self.canvas])


class Detection(Task):
    """Mask R-CNN (He et al. 2017) of torchvision on a feature pyramid (Lin et al. 2017) over the backbone's feature maps.

    Args:
        data_spec: comes from the datamodule; the images have its size and normalisation, and are not changed further.
        backbone: the network, made with the data spec; it must have `feature_maps`, as ResNet and LambdaResNet do.
        optimizer: of torch or timm, made with the parameters; its `lr` is what the schedule scales.
        schedule: of src.optim, the factor of the learning rate over training; None keeps it constant.
        anchor_sizes: sides of the anchors in pixels, one for each map of the backbone from the finest on, and one for a map
            of half the last one's size. Each comes with the aspects 1:2, 1:1 and 2:1.
        channels: channels of the pyramid and of the mask head.
        box_features: width of the box head.
        proposals: most regions of an image that are proposed, and most on each map before overlapping ones are dropped;
            half as many in evaluation.
        regions: number of the proposed regions that the heads are trained on, drawn at random, at most a quarter of them on
            objects.
        **options: of every task: weights, freeze, lr_decay and decay.
    """

    tasks = ("detection",)
    drawn_as = "objects"
    explained = "highest object score"

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512),
        channels: int = 256,
        box_features: int = 1024,
        proposals: int = 2000,
        regions: int = 512,
        **options: Any,
    ) -> None:
        super().__init__(data_spec, backbone, optimizer, schedule, **options)
        check_counts(anchor_sizes=anchor_sizes, channels=channels, box_features=box_features, regions=regions)
        check_range(2, 10**6, proposals=proposals)
        _, spec = one_image("Detection", data_spec)
        assert spec.grid is not None
        self.side = spec.grid[0], spec.grid[1]
        widths = [
            found.shape[1] for found in self.on_meta().backbone.feature_maps(data_spec.example_inputs(device="meta"))
        ]
        if len(anchor_sizes) != len(widths) + 1:
            raise UserError(
                f"anchor_sizes {list(anchor_sizes)} are {len(anchor_sizes)}: give {len(widths) + 1}, one for each of the "
                f"{len(widths)} feature maps of {type(self.backbone).__name__} and one more"
            )
        pyramid: Any = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool())
        pyramid.out_channels = channels  # what MaskRCNN asks of what it calls a backbone
        classes = data_spec.num_classes + 1  # 0 is the background
        self.detector = MaskRCNN(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(
                tuple((size,) for size in anchor_sizes), ((0.5, 1.0, 2.0),) * len(anchor_sizes)
            ),
            rpn_pre_nms_top_n_train=proposals,
            rpn_post_nms_top_n_train=proposals,
            rpn_pre_nms_top_n_test=proposals // 2,
            rpn_post_nms_top_n_test=proposals // 2,
            box_roi_pool=CanvasRoIAlign(self.side, len(widths), BOX_CELLS),
            box_head=TwoMLPHead(channels * BOX_CELLS**2, box_features),
            box_predictor=FastRCNNPredictor(box_features, classes),
            box_batch_size_per_image=regions,
            box_detections_per_img=DETECTIONS,
            mask_roi_pool=CanvasRoIAlign(self.side, len(widths), MASK_CELLS),
            mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(channels, channels, classes),
        )
        self.set_metrics(DetectionMetrics, "segm_map")

    def forward(self, inputs: dict[str, ByteArray]) -> dict[str, Tensor]:
        """The maps of the pyramid by name, each (B, channels, H, W), the finest first."""
        pyramid: Any = self.detector.backbone
        return pyramid({str(level): found for level, found in enumerate(self.backbone.feature_maps(inputs))})

    def detect(
        self, features: dict[str, Tensor], extents: Sizes, targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Find objects in B images, or learn them. This is torchvision's own way but for its transform, which would resize
        and normalise anew what the datamodule has prepared.

        Args:
            features: maps of the pyramid.
            extents: the rows and columns that each image fills. Boxes are clipped to them before masks are predicted.
            targets: in training; see `to_learn`.

        Returns:
            in evaluation what was found in each image: boxes (n, 4) in input pixels, labels (n,) from 1, scores (n,) and
            masks (n, 1, 28, 28) inside the boxes; in training the losses.
        """
        # of the pictures only the size of the canvas is read
        images = ImageList(features["0"].new_empty(0, 0, *self.side), list(extents))
        detector: Any = self.detector
        proposals, proposal_losses = detector.rpn(images, features, targets)
        found, losses = detector.roi_heads(features, proposals, images.image_sizes, targets)
        return found, {**losses, **proposal_losses}

    def extents(self, inputs: dict[str, ByteArray]) -> Sizes:
        """The rows and columns that each image fills: without the padding, which the mask leaves out."""
        (image,) = inputs.values()
        if image.mask is None:
            return [self.side] * len(image.values)
        inside = image.mask.unflatten(1, self.side)
        sides = torch.stack([inside.any(dim=2).sum(dim=1), inside.any(dim=1).sum(dim=1)], dim=1)
        return [(rows, columns) for rows, columns in sides.tolist()]

    def predict(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The objects in each image with a score of at least 0.5, in input pixels: boxes, labels from 0, scores, masks."""
        extents = self.extents(batch.inputs)
        found, _ = self.detect(self(batch.inputs), extents)
        return [confident(each, extent, self.side) for each, extent in zip(found, extents, strict=True)]

    def caption(
        self, prediction: dict[str, Tensor], target: dict[str, Tensor], names: Sequence[str]
    ) -> tuple[str, None]:
        return f"{len(target['boxes'])} annotated, {len(prediction['boxes'])} found", None

    def score_to_explain(self, inputs: dict[str, ByteArray]) -> Tensor:
        """The highest score of an object in each image, 0 without any."""
        features = self(inputs)
        found, _ = self.detect(features, self.extents(inputs))
        zero = features["0"].sum() * 0
        return torch.stack([each["scores"].max() if len(each["scores"]) else zero for each in found])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        real = batch.weight > 0  # at least one: the loader refuses a batch without
        features = {name: found[real] for name, found in self(batch.inputs).items()}
        rows = zip(self.extents(batch.inputs), batch.target, real, strict=True)
        extents, targets = zip(*((extent, to_learn(target)) for extent, target, r in rows if r), strict=True)
        _, losses = self.detect(features, extents, list(targets))
        loss = torch.stack(list(losses.values())).sum()
        self.log_dict({"train/loss": loss, **{f"train/{k}": v for k, v in losses.items()}}, batch_size=len(batch.keys))
        return loss

    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        found, _ = self.detect(self(batch.inputs), self.extents(batch.inputs))
        images = [row for row in zip(found, batch.target, batch.weight > 0, strict=True) if row[2]]
        metrics.update([in_original(found, target) for found, target, _ in images], [target for _, target, _ in images])

    def on_test_epoch_end(self) -> None:
        trainer: Any = self.trainer
        self.predictions = self.test_metrics.predictions(trainer.datamodule.category_ids)
        super().on_test_epoch_end()

    def counted(self, inputs: dict[str, ByteArray]) -> None:
        """Backbone, pyramid, the convolutions that propose, the box head on as many regions as can be proposed and the mask
        head on 100; not the cutting of regions out of the maps, and nothing that depends on what is in the image."""
        features = self(inputs)
        detector: Any = self.detector
        detector.rpn.head(list(features.values()))
        heads, maps = detector.roi_heads, features["0"]
        heads.box_predictor(
            heads.box_head(maps.new_empty(detector.rpn.post_nms_top_n(), maps.shape[1], BOX_CELLS, BOX_CELLS))
        )
        heads.mask_predictor(heads.mask_head(maps.new_empty(DETECTIONS, maps.shape[1], MASK_CELLS, MASK_CELLS)))


def confident(found: dict[str, Tensor], extent: tuple[int, int], side: tuple[int, int]) -> dict[str, Tensor]:
    """The objects of an image scoring at least CONFIDENT: labels from 0, masks of the input size, on the CPU."""
    keep = found["scores"] >= CONFIDENT
    boxes, masks = found["boxes"][keep].float(), found["masks"][keep].float()
    masks = paste_masks_in_image(masks, boxes, extent)[:, 0] > 0.5
    return {
        "boxes": boxes.cpu(),
        "labels": found["labels"][keep].cpu() - 1,
        "scores": found["scores"][keep].float().cpu(),
        "masks": F.pad(masks, (0, side[1] - extent[1], 0, side[0] - extent[0])).cpu(),
    }


def to_learn(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objects of an image without crowds, labels from 1."""
    single = ~target["iscrowd"]
    return {
        "boxes": target["boxes"][single],
        "labels": target["labels"][single] + 1,
        "masks": target["masks"][single],
    }


def in_original(found: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was found in an image, in pixels of its original: boxes, labels from 0, scores, masks (n, rows, columns) bool.

    A mask is pasted where it was predicted, in the box as it was found; only then is the box clipped.
    """
    size = tuple(target["size"].tolist())
    boxes = to_original(found["boxes"].float(), target)
    masks = paste_masks_in_image(found["masks"].float(), boxes, size)[:, 0] > 0.5
    clipped = clip_boxes_to_image(boxes, size)
    return {"boxes": clipped, "labels": found["labels"] - 1, "scores": found["scores"].float(), "masks": masks}
