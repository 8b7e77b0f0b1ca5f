"""Data sets of any modality as byte arrays with positions, reusable in any PyTorch project."""

from .clips.audioset import AudioSet
from .clips.dialpad import Dialpad
from .clips.garments_spoken import GarmentsSpoken
from .core.byte_array import Batch, ByteArray, DataSpec, ModalitySpec
from .core.datamodule import ByteArrayDataModule, Split, TensorSplit
from .core.errors import BadSampleError, UserError
from .core.flatten import Flatten, GridModality
from .detection.coco import Coco
from .detection.composed import Composed
from .diabetes import Diabetes
from .images.digits import Digits
from .images.fashion_mnist import FashionMNIST
from .images.imagenet import ImageNet
from .points.furniture import Furniture
from .points.modelnet40 import ModelNet40
from .sounds.language_id import LanguageId
from .text import Text

__all__ = [
    "AudioSet",
    "BadSampleError",
    "Batch",
    "ByteArray",
    "ByteArrayDataModule",
    "Coco",
    "Composed",
    "DataSpec",
    "Diabetes",
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
