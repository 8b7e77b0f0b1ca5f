"""ModelNet40: shapes of 40 classes."""

from __future__ import annotations

from typing import Any

from ..core.datamodule import SplitName
from ..core.errors import UserError
from ..core.splits import stratified_parts
from ..storage import shards
from .base import Fit, PointClouds, PointModality

NAMES = """airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser
flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio
range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox"""
MODELNET40_CLASSES = tuple(NAMES.split())


class ModelNet40(PointClouds):
    """ModelNet40, point clouds of shapes in 40 classes.

    There are 9,843 shapes to train, of which a tenth of each class is held out for model selection (val), and 2,468 to test.

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare modelnet40`.
        points: points per cloud, at most as many as were prepared.
        bands: frequencies of the Fourier features.
        max_frequency: maximum frequency of the Fourier features. The paper says "maximum frequency 1120, ten times
            ImageNet's". The highest frequency for ImageNet is 112, half of its max_frequency 224, hence 2240 here. The other
            reading is 1120.
        fit: scale clouds to the `cube` (as in the paper) or the `sphere`.
        jitter: in training, each point is scaled about the centre by its own factor in [1 - jitter, 1 + jitter], the
            per-point scaling of the paper. `fit` would undo a common factor.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "modelnet40"

    def __init__(
        self,
        data_dir: str = "data/modelnet40",
        points: int = 2048,
        bands: int = 64,
        max_frequency: float = 2240.0,
        fit: Fit = "cube",
        jitter: float = 0.01,
        **kwargs: Any,
    ) -> None:
        modality = PointModality(points, bands, max_frequency, fit)
        super().__init__(data_dir, MODELNET40_CLASSES, modality, jitter, stretch=0.0, mirror=False, **kwargs)

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare modelnet40 --source FOLDER --out {self.data_dir}"

    def select(self, name: SplitName) -> tuple[shards.ShardReader, list[int], list[int]]:
        reader = self.reader("test" if name == "test" else "train")
        names = [key.partition("/")[0] for key in reader.keys]
        if unknown := set(names) - set(MODELNET40_CLASSES):
            raise UserError(f"{self.data_dir} has shapes of no class of ModelNet40 ({min(unknown)}): prepare it again")
        labels = [MODELNET40_CLASSES.index(name) for name in names]
        numbers = list(range(len(labels)))
        if name != "test":
            tenths = stratified_parts(labels, 10, seed=0)
            numbers = [number for number in numbers if (tenths[number] == 0) == (name == "val")]
        return reader, numbers, [labels[number] for number in numbers]
