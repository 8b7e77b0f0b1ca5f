"""Sweet Home 3D's furniture."""

from __future__ import annotations

import json
import re
from typing import Literal

from ..core.datamodule import SplitName
from ..core.errors import UserError
from ..core.splits import deal
from ..storage import shards
from .base import Fit, PointClouds, PointModality

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
