"""Shards of a tiny data set, and ways to read them."""

import json
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


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of all files, by their paths in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_of_format_1(folder: Path) -> None:
    """Makes of a folder what ByteBench wrote before indices had hashes and files had checksums."""
    manifest = shards.read_manifest(folder)
    del manifest["format"], manifest["sha256"]
    for entry in manifest["splits"].values():
        for line in entry["shards"]:
            del line["index_sha256"]
            path = shards.index_path(folder / line["file"])
            index = [[key, {e: span[:2] for e, span in files.items()}] for key, files in json.loads(path.read_text())]
            path.write_text(json.dumps(index) + "\n")
    (folder / shards.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


class Read(Dataset):
    def __init__(self, source: shards.ShardReader) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.keys)

    def __getitem__(self, number: int) -> dict[str, bytes]:
        return self.source.read(number)
