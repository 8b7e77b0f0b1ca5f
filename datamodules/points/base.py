"""Point clouds: ModelNet40 and furniture, sampled from meshes when they were prepared, read from shards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.byte_array import ByteArray, DataSpec, ModalitySpec
from ..core.datamodule import ByteArrayDataModule, Split, SplitName
from ..core.errors import BadSampleError, UserError
from ..core.flatten import Flatten
from ..core.positions import fourier_channels, fourier_features
from ..storage import shards
from .meshes import cloud_from_bytes

Fit = Literal["cube", "sphere"]


class PointModality(nn.Module):
    """Points of one cloud each, a set without grid (Perceiver, section 4.3).

    The paper's 387 channels are the coordinates and the sines and cosines of 64 bands for each of them. Here the
    coordinates are the values, (B, M, 3), and the sines and cosines the positions, (B, M, 384), every cloud its own; `concat`
    gives the 387.

    bands, max_frequency: of the Fourier features, see `fourier_features`.
    fit: clouds are centred on their mean and scaled, alike on all axes, to reach the `cube` [-1, 1]^3 or the unit `sphere`.
    """

    def __init__(self, points: int, bands: int, max_frequency: float, fit: Fit = "cube") -> None:
        super().__init__()
        self.bands, self.max_frequency, self.fit = bands, max_frequency, fit
        self.spec = ModalitySpec(3, fourier_channels(3, bands) - 3, points, grid=None, coordinates=3)

    def forward(self, raw: Tensor) -> ByteArray:
        """raw: (B, M, 3), in any units."""
        if raw.shape[1:] != (self.spec.elements, 3):
            raise ValueError(f"expected (B, {self.spec.elements}, 3), got {tuple(raw.shape)}")
        xyz = raw.float()
        xyz = xyz - xyz.mean(dim=1, keepdim=True)
        reach = xyz.abs().amax(2) if self.fit == "cube" else xyz.norm(dim=2)
        # a cloud whose points coincide stays where it is
        xyz = xyz / reach.amax(1).clamp(min=torch.finfo(xyz.dtype).tiny)[:, None, None]
        return ByteArray(xyz, fourier_features(xyz, self.bands, self.max_frequency)[..., 3:])


class CloudSplit(Split):
    """Some of a reader's clouds: `numbers` says which, `labels` their classes.

    Every cloud gives `points` of its points: the first ones, or, for training, others each time. In training each point
    moves from or to the centre by a factor of its own in [1 - jitter, 1 + jitter], the cloud is stretched along each axis by
    a factor from exp(-stretch) to exp(stretch), and with `mirror` left and right (x) are exchanged every other time.
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
        try:
            cloud = cloud_from_bytes(self.reader.read(self.numbers[index])["npy"])
        except (BadSampleError, KeyError) as error:
            raise BadSampleError(f"{self.keys[index]}.npy {error}") from error
        if self.training:
            cloud = cloud[torch.randperm(len(cloud), generator=generator)[: self.points]]
            if self.mirror and torch.rand((), generator=generator) < 0.5:
                cloud = cloud * torch.tensor([-1.0, 1.0, 1.0])
            if self.stretch:
                cloud = cloud * torch.exp(self.stretch * (2 * torch.rand(3, generator=generator) - 1))
            cloud = cloud * (1 + self.jitter * (2 * torch.rand(self.points, 1, generator=generator) - 1))
        return {"points": cloud[: self.points], "target": torch.tensor(self.labels[index])}


class PointClouds(ByteArrayDataModule):
    """Base of the sets of point clouds. A subclass says how to prepare its folder and which clouds are in a split.

    upright: the axis that points up.
    """

    upright = 2

    def __init__(
        self,
        data_dir: str,
        classes: Sequence[str],
        modality: PointModality,
        jitter: float,
        stretch: float,
        mirror: bool,
        batch_size: int,
        num_workers: int,
        seed: int,
        on_bad_sample: Literal["raise", "skip"],
        max_bad_share: float,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        self.data_dir, self.augmentation = data_dir, {"jitter": jitter, "stretch": stretch, "mirror": mirror}
        self.points = modality.spec.elements
        self.flatten = Flatten({"points": modality})
        self.spec = DataSpec({"points": modality.spec}, "single_label", tuple(classes))

    @property
    @abstractmethod
    def how_to_make(self) -> str:
        """The command that fills the folder."""

    @abstractmethod
    def choose(self, name: SplitName) -> tuple[shards.ShardReader, list[int], list[int]]:
        """A reader, the numbers of the split's clouds in it, and their classes."""

    def manifest(self) -> dict:
        manifest = shards.read_manifest(self.data_dir, self.how_to_make)
        if self.points > manifest["made_with"]["points"]:
            raise UserError(
                f"{self.data_dir} holds clouds of {manifest['made_with']['points']} points, --data.points asks for "
                f"{self.points}: ask for fewer, or delete the folder and run `{self.how_to_make} --points {self.points}`"
            )
        return manifest

    def reader(self, stored: str) -> shards.ShardReader:
        return shards.ShardReader(self.data_dir, self.manifest()["splits"][stored]["shards"], self.how_to_make)

    def make_split(self, name: SplitName) -> Split:
        chosen = self.choose(name)
        return CloudSplit(*chosen, self.points, training=name == "train", **self.augmentation)

    def fingerprint(self) -> str:
        return shards.fingerprint(self.data_dir, self.manifest())
