"""Furniture of Sweet Home 3D."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Literal

from ..core.datamodule import SplitName
from ..core.errors import UserError, decoding
from ..core.splits import stratified_parts
from ..storage import shards
from .base import Fit, PointClouds, PointModality

FURNITURE_ROOMS = (
    *("Bathroom", "Bedroom", "Characters", "Doors and windows", "Exterior", "Kitchen", "Lights", "Living room"),
    *("Miscellaneous", "Office", "Staircases", "Vehicles"),
)

# The last of these words in a name determines the kind: a glass door cabinet is a cabinet, a desk lamp a lamp, a double
# door with panes a door. These are all kinds with nine or more pieces, except people, who differ mostly by pose.
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
EXCLUDED_NAMES = ("Table fan", "Table tennis bat", "Window blind", "Window shutter")  # neither tables nor windows


def furniture_kind(name: str) -> str | None:
    """The kind of a piece of furniture by its English name, such as "lamp" for "Desk lamp"; None if it has no kind."""
    kinds = [FURNITURE_KINDS[word] for word in re.findall("[a-z]+", name.lower()) if word in FURNITURE_KINDS]
    return kinds[-1] if kinds and name not in EXCLUDED_NAMES else None


class Furniture(PointClouds):
    """Point clouds of shapes from the furniture catalogues of Sweet Home 3D, in five folds.

    One fold is the test split. Half a fold, a tenth of all shapes, is held out for model selection (val), and the rest is
    for training; all splits are stratified by class.

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare furniture`.
        labels: `rooms`, 820 shapes in 12 categories of the catalogues, or `kinds`, 271 shapes of 13 kinds by their names
            (see `furniture_kind`).
        fold: the fold of the test split, 0 to 4.
        fold_seed: seed of the assignment to folds, for repetitions.
        points: points per cloud, at most as many as were prepared.
        bands: frequencies of the Fourier features.
        max_frequency: maximum frequency of the Fourier features; lower than for ModelNet40, since there are so few shapes.
        fit: scale clouds to the `cube` or the `sphere`.
        jitter: in training, each point is scaled about the centre by its own factor in [1 - jitter, 1 + jitter].
        stretch: training shapes are stretched along each axis by a factor from exp(-stretch) to exp(stretch).
        mirror: whether to mirror training shapes left to right with probability 0.5.
        batch_size: samples per step, over all ranks.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "furniture"
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
        **kwargs: Any,
    ) -> None:
        if labels not in ("rooms", "kinds") or fold not in range(5):
            raise UserError(f"labels {labels}, fold {fold}: use the labels rooms or kinds, and a fold from 0 to 4")
        classes = FURNITURE_ROOMS if labels == "rooms" else tuple(sorted(set(FURNITURE_KINDS.values())))
        modality = PointModality(points, bands, max_frequency, fit)
        super().__init__(data_dir, classes, modality, jitter, stretch, mirror, batch_size=batch_size, **kwargs)
        self.labels, self.fold, self.fold_seed = labels, fold, fold_seed

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare furniture --out {self.data_dir}"

    @cached_property
    def catalogues(self) -> dict[str, str]:
        reader = self.reader("all")
        samples = (reader.read(number, only=("json",)) for number in range(len(reader.keys)))
        return {sample.key: str(sample.metadata().get("catalogue", sample.key)) for sample in samples}

    def cluster(self, key: str) -> str:
        """The catalogue: its shapes were made by few hands."""
        return self.catalogues[key]

    def class_of(self, sample: shards.Sample) -> int | None:
        """The class of a shape by its json; None if it has none.

        A damaged json is an error whatever `on_bad_sample` says, since the folds depend on the classes of all shapes.
        """
        metadata = sample.metadata()
        with decoding(f"{sample.key}.json"):
            found = metadata["room"] if self.labels == "rooms" else furniture_kind(metadata["name"])
        return self.spec.classes.index(found) if found in self.spec.classes else None

    def select(self, name: SplitName) -> tuple[shards.ShardReader, list[int], list[int]]:
        reader = self.reader("all")
        found = [self.class_of(reader.read(number, only=("json",))) for number in range(len(reader.keys))]
        shapes = [(number, label) for number, label in enumerate(found) if label is not None]
        folds = stratified_parts([label for _, label in shapes], 5, self.fold_seed)
        tested = [shape for shape, fold in zip(shapes, folds, strict=True) if fold == self.fold]
        rest = [shape for shape, fold in zip(shapes, folds, strict=True) if fold != self.fold]
        eighths = stratified_parts([label for _, label in rest], 8, self.fold_seed)
        held_out = [shape for shape, eighth in zip(rest, eighths, strict=True) if eighth == 0]
        trained = [shape for shape, eighth in zip(rest, eighths, strict=True) if eighth != 0]
        chosen = {"train": trained, "val": held_out, "test": tested}[name]
        return reader, [number for number, _ in chosen], [label for _, label in chosen]
