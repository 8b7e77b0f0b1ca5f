"""Shards of a tiny data set, and ways to read them."""

from pathlib import Path

from torch.utils.data import Dataset

from datamodules.storage import shards

COMMAND = "python -m datamodules.prepare tiny"
SPLITS = {"train": list(range(8)), "val": list(range(8, 11))}


def make(number: int) -> dict:
    return {"__key__": f"s{number:03d}", "bin": bytes([number % 256]) * (500 + number), "json": {"n": number}}


def write(folder: Path, make=make, splits=SPLITS, **settings) -> dict:
    settings = {"made_with": {"seed": 0}, "licence": "own", "samples_per_shard": 4, **settings}
    return shards.write_shards(folder, "tiny", splits, make, **settings)


def reader(folder: Path | str, split: str = "train") -> shards.ShardReader:
    return shards.ShardReader(folder, shards.read_manifest(folder, COMMAND)["splits"][split]["shards"], COMMAND)


class Read(Dataset):
    def __init__(self, source: shards.ShardReader) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.keys)

    def __getitem__(self, number: int) -> dict[str, bytes]:
        return self.source.read(number)
