"""Icons in several encodings: the same drawings as pixels, as points along their outline, and as the bytes of their paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.byte_array import ByteArray, DataSpec, ModalitySpec
from ..core.checks import check_counts, check_range
from ..core.datamodule import Split, SplitName
from ..core.errors import BadSampleError, UserError, decoding
from ..core.flatten import Flatten, GridModality
from ..core.positions import fourier_channels, fourier_features
from ..images.transforms import decode_image
from ..points.meshes import cloud_from_bytes
from ..storage import shards
from ..storage.sharded import ShardedData
from ..text import TextModality, padded_bytes
from .concepts import CONCEPTS

Encoding = Literal["pixels", "outline", "path"]
ENCODINGS: tuple[Encoding, ...] = ("pixels", "outline", "path")


class OutlineModality(nn.Module):
    """Points in the plane as a set: x and y are the values (B, M, 2), their sines and cosines the positions.

    Args:
        points: M, points of a drawing.
        bands: frequencies of the Fourier features.
        max_frequency: maximum frequency of the Fourier features.
    """

    def __init__(self, points: int, bands: int, max_frequency: float) -> None:
        super().__init__()
        self.bands, self.max_frequency = bands, max_frequency
        self.spec = ModalitySpec(2, fourier_channels(2, bands) - 2, points, grid=None, coordinates=2, kind="points")

    def forward(self, raw: Tensor) -> ByteArray:
        """Takes points (B, M, 2) in [-1, 1]."""
        return ByteArray(raw.float(), fourier_features(raw.float(), self.bands, self.max_frequency)[..., 2:])


class IconSplit(Split):
    """Icons in shards: png, npy (points), txt (paths), and json with `label`."""

    def __init__(self, reader: shards.ShardReader, data: Icons, shift: int = 0) -> None:
        self.reader, self.data, self.shift, self.keys = reader, data, shift, reader.keys

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        files = self.reader.read(index)
        sample = {"target": torch.tensor(files.label(len(CONCEPTS)))}
        if "pixels" in self.data.encodings:
            with decoding(f"{files.key}.png"):
                sample["pixels"] = shifted(decode_image(files["png"]), self.shift, generator)
        if "outline" in self.data.encodings:
            with decoding(f"{files.key}.npy"):
                points = cloud_from_bytes(files["npy"], coordinates=2)
            if len(points) < self.data.points:
                raise BadSampleError(f"{files.key} holds {len(points)} points, fewer than {self.data.points}")
            spaced = torch.linspace(0, len(points) - 1, self.data.points).round().long()
            sample["outline"] = points[spaced]
        if "path" in self.data.encodings:
            sample["path"] = padded_bytes(files["txt"], self.data.path_bytes)
        return sample


def shifted(image: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """A picture (H, W, C) on white, moved by up to `most` pixels each way."""
    if not most:
        return image
    height, width, _ = image.shape
    top, left = torch.randint(2 * most + 1, (2,), generator=generator).tolist()
    return F.pad(image, (0, 0, most, most, most, most), value=255)[top : top + height, left : left + width]


class Icons(ShardedData):
    """What an icon shows, one of 375 things: 18,963 icons of 201 open sets of @iconify/json 2.2.535.

    Every drawing comes in three encodings, so the same question can be asked of pixels, of points and of bytes. An icon set
    has one style and lies in one split, so models are tested on styles that they have not seen. Icons of a set are no
    independent samples: `cluster` names their set. Licences: of every set its own, without those that forbid commercial use
    or are GPL; the manifest lists them.

    Modalities, as `encodings` names them:

    - pixels: 32 x 32 on white, in patches
    - outline: points along the outlines, evenly by length, as a set
    - path: the bytes of the paths, truncated or padded and masked

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare icons`.
        encodings: one or several of pixels, outline and path.
        side: height and width of the pictures, as prepared.
        patch: side of a patch in pixels.
        points: points of the outline, at most as many as prepared.
        path_bytes: bytes of a path; the median path of the icons has 300 bytes, the longest tenth over 1,000.
        bands: frequencies of the Fourier features.
        shift: training pictures are moved by up to so many pixels each way; the white around an icon is about two wide.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "icons"
    credit = "the icon set that its name begins with, of @iconify/json"

    def __init__(
        self,
        data_dir: str = "data/icons",
        encodings: Sequence[Encoding] = ("pixels",),
        side: int = 32,
        patch: int = 2,
        points: int = 128,
        path_bytes: int = 512,
        bands: int = 16,
        shift: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range(0, side - 1, shift=shift)
        check_counts(side=side, patch=patch, points=points, path_bytes=path_bytes)
        if not encodings or not set(encodings) <= set(ENCODINGS) or len(set(encodings)) != len(encodings):
            raise UserError(f"encodings {list(encodings)}: choose from {', '.join(ENCODINGS)}, each once")
        self.data_dir, self.encodings = Path(data_dir), tuple(encodings)
        self.points, self.path_bytes, self.shift = points, path_bytes, shift
        modules: dict[str, Any] = {
            "pixels": lambda: GridModality((side, side), 3, bands, patch=(patch, patch), mean=255.0, std=127.5),
            "outline": lambda: OutlineModality(points, bands, 32.0),
            "path": lambda: TextModality(path_bytes, bands),
        }
        chosen: dict[str, Any] = {name: modules[name]() for name in self.encodings}
        self.flatten = Flatten(chosen)
        self.spec = DataSpec({name: module.spec for name, module in chosen.items()}, "single_label", CONCEPTS)

    def make_split(self, name: SplitName) -> Split:
        return IconSplit(self.reader(name), self, self.shift if name == "train" else 0)

    def licence_of(self, key: str) -> str | None:
        """The licence of its icon set."""
        return self.manifest()["made_with"].get("licences", {}).get(self.cluster(key))

    def cluster(self, key: str) -> str:
        """The icon set of a sample."""
        return key.partition("/")[0]
