"""The base class of point clouds, which are sampled from meshes when they are prepared and read from shards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.byte_array import ByteArray, DataSpec, ModalitySpec
from ..core.checks import check_range
from ..core.datamodule import ByteArrayDataModule, Split, SplitName
from ..core.errors import BadSampleError, UserError, decoding
from ..core.flatten import Flatten
from ..core.positions import fourier_channels, fourier_features
from ..storage import shards
from .meshes import cloud_from_bytes

Fit = Literal["cube", "sphere"]


class PointModality(nn.Module):
    """The points of a cloud, as a set without a grid (Perceiver, section 4.3).

    The 387 channels of the paper are the coordinates and, for each of them, sines and cosines of 64 bands. Here the
    coordinates are the values, (B, M, 3), and the sines and cosines are the positions of each cloud, (B, M, 384); `concat`
    returns all 387.

    Args:
        points: points per cloud.
        bands: frequencies of the Fourier features, see `fourier_features`.
        max_frequency: maximum frequency of the Fourier features.
        fit: clouds are centred on their mean and scaled uniformly to fit the `cube` [-1, 1]^3 or the unit `sphere`.
    """

    def __init__(self, points: int, bands: int, max_frequency: float, fit: Fit = "cube") -> None:
        super().__init__()
        check_range(0, max_frequency=max_frequency)
        self.bands, self.max_frequency, self.fit = bands, max_frequency, fit
        self.spec = ModalitySpec(3, fourier_channels(3, bands) - 3, points, grid=None, coordinates=3, kind="points")

    def forward(self, raw: Tensor) -> ByteArray:
        """Takes points (B, M, 3) in any units."""
        if raw.shape[1:] != (self.spec.elements, 3):
            raise ValueError(f"expected (B, {self.spec.elements}, 3), got {tuple(raw.shape)}")
        xyz = raw.float()
        xyz = xyz - xyz.mean(dim=1, keepdim=True)
        reach = xyz.abs().amax(2) if self.fit == "cube" else xyz.norm(dim=2)
        # the clamp keeps a cloud finite if all its points coincide
        xyz = xyz / reach.amax(1).clamp(min=torch.finfo(xyz.dtype).tiny)[:, None, None]
        return ByteArray(xyz, fourier_features(xyz, self.bands, self.max_frequency)[..., 3:])


class CloudSplit(Split):
    """Clouds of a reader, each reduced to its first points, or to a random choice of points in training.

    Args:
        reader: the shards.
        numbers: indices of the clouds in the reader.
        labels: their classes.
        points: points per cloud.
        training: whether to choose points at random and to augment.
        jitter: each point is scaled about the centre by its own factor in [1 - jitter, 1 + jitter].
        stretch: the cloud is stretched along each axis by a factor from exp(-stretch) to exp(stretch).
        mirror: whether to mirror x with probability 0.5.
    """

    def __init__(
        self,
        reader: shards.ShardReader,
        numbers: Sequence[int],
        labels: Sequence[int],
        points: int,
        training: bool = False,
        jitter: float = 0.0,
        stretch: float = 0.0,
        mirror: bool = False,
    ) -> None:
        self.reader, self.numbers, self.labels = reader, numbers, labels
        self.keys = [reader.keys[number] for number in numbers]
        self.points, self.training = points, training
        self.jitter, self.stretch, self.mirror = jitter, stretch, mirror

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        content = self.reader.read(self.numbers[index], only=("npy",))["npy"]
        with decoding(f"{self.keys[index]}.npy"):
            cloud = cloud_from_bytes(content)
            if len(cloud) < self.points:
                raise BadSampleError(f"holds {len(cloud)} points, fewer than {self.points}")
        if self.training:
            cloud = cloud[torch.randperm(len(cloud), generator=generator)[: self.points]]
            if self.mirror and torch.rand((), generator=generator) < 0.5:
                cloud = cloud * torch.tensor([-1.0, 1.0, 1.0])
            if self.stretch:
                cloud = cloud * torch.exp(self.stretch * (2 * torch.rand(3, generator=generator) - 1))
            cloud = cloud * (1 + self.jitter * (2 * torch.rand(self.points, 1, generator=generator) - 1))
        return {"points": cloud[: self.points], "target": torch.tensor(self.labels[index])}


class PointClouds(ByteArrayDataModule):
    """Base class of point clouds. A subclass sets `prepared_as`, its name in `datamodules.prepare`, and implements
    `how_to_make` and `select`.

    Args:
        data_dir: the folder of the shards.
        classes: names of the classes.
        modality: the modality.
        jitter: see CloudSplit.
        stretch: see CloudSplit.
        mirror: see CloudSplit.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as: str
    upright = 2  # the axis that points up

    def __init__(
        self,
        data_dir: str,
        classes: Sequence[str],
        modality: PointModality,
        jitter: float = 0.01,
        stretch: float = 0.0,
        mirror: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range(0, 1, jitter=jitter, stretch=stretch)
        self.data_dir, self.augmentation = data_dir, {"jitter": jitter, "stretch": stretch, "mirror": mirror}
        self.points = modality.spec.elements
        self.flatten = Flatten({"points": modality})
        self.spec = DataSpec({"points": modality.spec}, "single_label", tuple(classes))

    @property
    @abstractmethod
    def how_to_make(self) -> str:
        """The command that fills the folder."""

    @abstractmethod
    def select(self, name: SplitName) -> tuple[shards.ShardReader, list[int], list[int]]:
        """Returns a reader, the indices of the split's clouds in it, and their classes."""

    def manifest(self) -> dict:
        manifest = shards.read_manifest(self.data_dir, self.how_to_make, self.prepared_as)
        if self.points > manifest["made_with"]["points"]:
            raise UserError(
                f"{self.data_dir} holds clouds of {manifest['made_with']['points']} points, but --data.points is "
                f"{self.points}: lower it, or delete the folder and run `{self.how_to_make} --points {self.points}`"
            )
        return manifest

    def reader(self, stored: str) -> shards.ShardReader:
        return shards.ShardReader(self.data_dir, shards.shards_of(self.manifest(), stored), self.how_to_make)

    def make_split(self, name: SplitName) -> Split:
        return CloudSplit(*self.select(name), self.points, training=name == "train", **self.augmentation)

    def fingerprint(self) -> str:
        return shards.fingerprint(self.data_dir, self.manifest())
