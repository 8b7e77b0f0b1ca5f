"""Data sets of any modality as byte arrays with positions, reusable in any PyTorch project."""

from datamodules.audiovisual import Dialpad
from datamodules.base import ByteArrayDataModule, Split, TensorSplit
from datamodules.byte_array import Batch, ByteArray, DataSpec, ModalitySpec
from datamodules.errors import BadSampleError, UserError
from datamodules.flatten import Flatten, GridModality
from datamodules.images import Digits, FashionMNIST

__all__ = [
    "BadSampleError",
    "Batch",
    "ByteArray",
    "ByteArrayDataModule",
    "DataSpec",
    "Dialpad",
    "Digits",
    "FashionMNIST",
    "Flatten",
    "GridModality",
    "ModalitySpec",
    "Split",
    "TensorSplit",
    "UserError",
]
