"""The base class of pictures that have a name: both are modalities, together or alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.byte_array import DataSpec, TaskKind
from ..core.checks import check_counts
from ..core.datamodule import Split, SplitName
from ..core.errors import UserError, decoding
from ..core.flatten import Flatten, GridModality
from ..images.transforms import decode_image
from ..storage.sharded import ShardedData
from ..storage.shards import Sample, ShardReader
from ..text import TextModality, padded_bytes

NamedModality = Literal["picture", "name"]
MODALITIES: tuple[NamedModality, ...] = ("picture", "name")


class NamedPictures(ShardedData):
    """Base class of drawings with names, in shards of png and json.

    Args:
        data_dir: the folder of the shards.
        task: single_label or multi_label.
        classes: names of the classes.
        modalities: picture, name, or both.
        side: height and width of the pictures, as prepared.
        patch: side of a patch in pixels.
        name_bytes: bytes of a name, truncated or padded and masked.
        bands: frequencies of the Fourier features.
        kwargs: see ByteArrayDataModule.
    """

    def __init__(
        self,
        data_dir: str,
        task: TaskKind,
        classes: Sequence[str],
        modalities: Sequence[NamedModality],
        side: int,
        patch: int,
        name_bytes: int,
        bands: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_counts(side=side, patch=patch, name_bytes=name_bytes)
        if not modalities or not set(modalities) <= set(MODALITIES) or len(set(modalities)) != len(modalities):
            raise UserError(f"modalities {list(modalities)}: choose from {', '.join(MODALITIES)}, each once")
        self.data_dir, self.modalities, self.name_bytes = Path(data_dir), tuple(modalities), name_bytes
        modules: dict[str, Any] = {
            "picture": lambda: GridModality((side, side), 3, bands, patch=(patch, patch), mean=255.0, std=127.5),
            "name": lambda: TextModality(name_bytes, bands),
        }
        chosen: dict[str, Any] = {name: modules[name]() for name in self.modalities}
        self.flatten = Flatten(chosen)
        self.spec = DataSpec({name: module.spec for name, module in chosen.items()}, task, tuple(classes))

    @abstractmethod
    def target(self, sample: Sample) -> Tensor:
        """What is to be learned of a sample."""

    @abstractmethod
    def name_of(self, sample: Sample) -> str:
        """The name of a sample."""

    def rows(self, name: SplitName, keys: Sequence[str]) -> Sequence[int]:
        """Which samples of the shards of a split belong to it; all by default."""
        return range(len(keys))

    def make_split(self, name: SplitName) -> Split:
        reader = self.reader(name)
        return NamedSplit(reader, self.rows(name, reader.keys), self)


class NamedSplit(Split):
    """Some samples of shards with png and json."""

    def __init__(self, reader: ShardReader, rows: Sequence[int], data: NamedPictures) -> None:
        self.reader, self.rows, self.data = reader, rows, data
        self.keys = [reader.keys[row] for row in rows]

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        files = self.reader.read(self.rows[index])
        sample = {"target": self.data.target(files)}
        if "picture" in self.data.modalities:
            with decoding(f"{files.key}.png"):
                sample["picture"] = decode_image(files["png"])
        if "name" in self.data.modalities:
            sample["name"] = padded_bytes(self.data.name_of(files).encode(), self.data.name_bytes)
        return sample
