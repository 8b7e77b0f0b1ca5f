"""Data sets of any modality as byte arrays with positions, reusable in any PyTorch project."""

from datamodules.audiovisual import AudioSet, Dialpad, GarmentsSpoken
from datamodules.base import ByteArrayDataModule, Split, TensorSplit
from datamodules.byte_array import Batch, ByteArray, DataSpec, ModalitySpec
from datamodules.detection import Coco, Composed
from datamodules.errors import BadSampleError, UserError
from datamodules.flatten import Flatten, GridModality
from datamodules.images import Digits, FashionMNIST, ImageNet
from datamodules.point_clouds import Furniture, ModelNet40
from datamodules.speech import LanguageId
from datamodules.text import Text

__all__ = [
    "AudioSet",
    "BadSampleError",
    "Batch",
    "ByteArray",
    "ByteArrayDataModule",
    "Coco",
    "Composed",
    "DataSpec",
    "Dialpad",
    "Digits",
    "FashionMNIST",
    "Flatten",
    "Furniture",
    "GarmentsSpoken",
    "GridModality",
    "ImageNet",
    "LanguageId",
    "ModalitySpec",
    "ModelNet40",
    "Split",
    "TensorSplit",
    "Text",
    "UserError",
]
