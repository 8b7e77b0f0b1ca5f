"""Point clouds: ModelNet40 and furniture, sampled from meshes when they were prepared, read from shards."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules import shards
from datamodules.base import ByteArrayDataModule, Split, SplitName
from datamodules.byte_array import ByteArray, DataSpec, ModalitySpec
from datamodules.errors import BadSampleError, UserError
from datamodules.flatten import Flatten
from datamodules.meshes import cloud_from_bytes
from datamodules.positions import fourier_channels, fourier_features
from datamodules.splits import deal

Fit = Literal["cube", "sphere"]

MODELNET40_CLASSES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain"),
    *(
        "desk",
        "door",
        "dresser",
        "flower_pot",
        "glass_box",
        "guitar",
        "keyboard",
        "lamp",
        "laptop",
        "mantel",
        "monitor",
    ),
    *("night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool", "table"),
    *("tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox"),
)

FURNITURE_ROOMS = (
    *("Bathroom", "Bedroom", "Characters", "Doors and windows", "Exterior", "Kitchen", "Lights", "Living room"),
    *("Miscellaneous", "Office", "Staircases", "Vehicles"),
)
# What a piece is, by the last of these words in its name: a glass door cabinet is a cabinet, a desk lamp a lamp, a double
# door with panes a door. All kinds with nine pieces or more but people, whose poses differ more than their kinds.
FURNITURE_KINDS = {
    "bed": "bed",
    "bottle": "bottle",
    "box": "box",
    "cabinet": "cabinet",
    "chair": "chair",
    "armchair": "chair",
    "door": "door",
    "lamp": "lamp",
    "plant": "plant",
    "plug": "plug",
    "sofa": "sofa",
    "couch": "sofa",
    "switch": "switch",
    "table": "table",
    "window": "window",
}
OF_NO_KIND = ("Table fan", "Table tennis bat", "Window blind", "Window shutter")  # neither tables nor windows


def furniture_kind(name: str) -> str | None:
    """The kind of a piece of furniture by its English name, such as "lamp" for "Desk lamp"; None if it is of no kind."""
    kinds = [FURNITURE_KINDS[word] for word in re.findall("[a-z]+", name.lower()) if word in FURNITURE_KINDS]
    return kinds[-1] if kinds and name not in OF_NO_KIND else None


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


class ModelNet40(PointClouds):
    """ModelNet40, shapes of 40 classes as sets of points: 9,843 to train, of which a tenth of each class is held out for
    choosing (val), and 2,468 to test.

    data_dir: the folder that `python -m datamodules.prepare modelnet40` writes.
    points: of one cloud; at most those that were prepared.
    bands, max_frequency: of the Fourier features. The paper says "maximum frequency 1120, ten times ImageNet's", whose
        highest frequency is 112, half of its max_frequency 224: so 2240 here. 1120 is the other reading.
    fit: `cube` (the paper) or `sphere`.
    jitter: training only; every point is moved from or to the centre by a factor of its own in [1 - jitter, 1 + jitter],
        the paper's per-point scaling. One factor for all points would be undone by `fit`.
    """

    def __init__(
        self,
        data_dir: str = "data/modelnet40",
        points: int = 2048,
        bands: int = 64,
        max_frequency: float = 2240.0,
        fit: Fit = "cube",
        jitter: float = 0.01,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        modality = PointModality(points, bands, max_frequency, fit)
        loading = (batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        super().__init__(data_dir, MODELNET40_CLASSES, modality, jitter, 0.0, False, *loading)

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare modelnet40 --source FOLDER --out {self.data_dir}"

    def choose(self, name: SplitName) -> tuple[shards.ShardReader, list[int], list[int]]:
        reader = self.reader("test" if name == "test" else "train")
        labels = [MODELNET40_CLASSES.index(key.partition("/")[0]) for key in reader.keys]
        numbers = list(range(len(labels)))
        if name != "test":
            tenths = deal(labels, 10, seed=0)
            numbers = [number for number in numbers if (tenths[number] == 0) == (name == "val")]
        return reader, numbers, [labels[number] for number in numbers]


class Furniture(PointClouds):
    """Shapes of Sweet Home 3D's furniture catalogues as sets of points, in five folds.

    labels: `rooms`, 820 shapes in 12 categories of the catalogues; or `kinds`, the 271 shapes whose names say one of 13
        kinds (see `furniture_kind`).
    fold: which of the five folds is the test split. Half a fold, a tenth of all, is held out for choosing (val), the rest
        trains; classes are spread evenly.
    fold_seed: deals the folds anew, for repeats.
    data_dir: the folder that `python -m datamodules.prepare furniture` writes.
    points, bands, max_frequency, fit, jitter: as in ModelNet40; lower frequencies, for sets this small.
    stretch: training shapes are stretched along each axis by a factor from exp(-stretch) to exp(stretch).
    mirror: left and right of training shapes are exchanged every other time.
    """

    upright = 1

    def __init__(
        self,
        data_dir: str = "data/furniture",
        labels: Literal["rooms", "kinds"] = "kinds",
        fold: int = 0,
        fold_seed: int = 0,
        points: int = 2048,
        bands: int = 16,
        max_frequency: float = 32.0,
        fit: Fit = "cube",
        jitter: float = 0.01,
        stretch: float = 0.0,
        mirror: bool = False,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        if labels not in ("rooms", "kinds") or fold not in range(5):
            raise UserError(f"labels {labels}, fold {fold}: give rooms or kinds, and a fold from 0 to 4")
        classes = FURNITURE_ROOMS if labels == "rooms" else tuple(sorted(set(FURNITURE_KINDS.values())))
        modality = PointModality(points, bands, max_frequency, fit)
        loading = (batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        super().__init__(data_dir, classes, modality, jitter, stretch, mirror, *loading)
        self.labels, self.fold, self.fold_seed = labels, fold, fold_seed

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare furniture --out {self.data_dir}"

    def class_of(self, meta: dict) -> int | None:
        """The class of a shape by its json, None if it has none."""
        found = meta["room"] if self.labels == "rooms" else furniture_kind(meta["name"])
        return self.spec.classes.index(found) if found in self.spec.classes else None

    def choose(self, name: SplitName) -> tuple[shards.ShardReader, list[int], list[int]]:
        reader = self.reader("all")
        found = [self.class_of(json.loads(reader.read(number)["json"])) for number in range(len(reader.keys))]
        shapes = [(number, label) for number, label in enumerate(found) if label is not None]
        folds = deal([label for _, label in shapes], 5, self.fold_seed)
        tested = [shape for shape, fold in zip(shapes, folds, strict=True) if fold == self.fold]
        rest = [shape for shape, fold in zip(shapes, folds, strict=True) if fold != self.fold]
        eighths = deal([label for _, label in rest], 8, self.fold_seed)
        held_out = [shape for shape, eighth in zip(rest, eighths, strict=True) if eighth == 0]
        trained = [shape for shape, eighth in zip(rest, eighths, strict=True) if eighth != 0]
        chosen = {"train": trained, "val": held_out, "test": tested}[name]
        return reader, [number for number, _ in chosen], [label for _, label in chosen]
