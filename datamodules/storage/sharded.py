"""The base class of data sets in shards."""

from __future__ import annotations

from pathlib import Path

from ..core.datamodule import ByteArrayDataModule, SplitName
from . import shards


class ShardedData(ByteArrayDataModule):
    """Base class of data sets in shards. A subclass sets `prepared_as`, its name in `datamodules.prepare`, and `data_dir`."""

    prepared_as: str
    data_dir: Path

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare {self.prepared_as} --out {self.data_dir}"

    def manifest(self) -> dict:
        return shards.read_manifest(self.data_dir, self.how_to_make, getattr(self, "prepared_as", None))

    def licence_of(self, key: str) -> str | None:
        """The licence of a sample: that of the data set, by default what its manifest says."""
        return self.licence or self.manifest()["licence"]

    def reader(self, name: SplitName) -> shards.ShardReader:
        return shards.ShardReader(self.data_dir, shards.shards_of(self.manifest(), name), self.how_to_make)

    def fingerprint(self) -> str:
        return shards.fingerprint(self.data_dir, self.manifest())
