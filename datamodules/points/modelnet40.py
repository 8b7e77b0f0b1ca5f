"""ModelNet40: shapes of 40 classes."""

from __future__ import annotations

from typing import Literal

from ..core.datamodule import SplitName
from ..core.splits import deal
from ..storage import shards
from .base import Fit, PointClouds, PointModality

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
