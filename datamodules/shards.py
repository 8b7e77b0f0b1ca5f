"""Tar shards in the webdataset convention (key.mp4, key.json, ...) with an index beside each, and a manifest.

    DIR/manifest.json             what was written: shards with size and sha256 per split, and how they were made
    DIR/train-000000.tar          readable by webdataset and by tar
    DIR/train-000000.index.json   [[key, {extension: [offset, size]}], ...], for reading in any order

The manifest is written last: a folder without it is unfinished and never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import webdataset

from datamodules.errors import UserError

MANIFEST = "manifest.json"


def write_shard(path: Path, samples: Iterable[dict]) -> dict:
    """Write one tar and its index. A sample is {"__key__": name, extension: bytes or, for json, a dict}.

    The tar is written aside and renamed. Returns the shard's line of the manifest.
    """
    aside = path.with_suffix(".tar.part")
    # a fixed time, so that equal samples make equal bytes
    with webdataset.TarWriter(str(aside), mtime=0, encoder=True) as writer:
        for sample in samples:
            writer.write(sample)
    index: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(aside) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            index.setdefault(key, {})[extension] = (member.offset_data, member.size)
    index_path(path).write_text(json.dumps(list(index.items())))
    os.replace(aside, path)
    return {"file": path.name, "samples": len(index), "bytes": path.stat().st_size, "sha256": sha256(path)}


def index_path(shard: Path) -> Path:
    return shard.with_suffix(".index.json")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, name: str, made_with: dict, splits: dict[str, list[dict]]) -> None:
    """Finish a folder: `made_with` says how the samples were made, `splits` has the lines of `write_shard`."""
    manifest = {"name": name, "made_with": made_with, "splits": splits}
    aside = folder / (MANIFEST + ".part")
    aside.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(aside, folder / MANIFEST)


def read_manifest(folder: Path, how_to_make: str) -> dict:
    """The manifest of a finished folder. `how_to_make`: the command that makes the folder, for the error."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} has no {MANIFEST}: run `{how_to_make}`")
    return json.loads(path.read_text())


class ShardReader:
    """Random access to the samples of some shards, by number, from any process.

    Raises UserError where a shard is missing or has another size than the manifest says.
    """

    def __init__(self, folder: Path, shards: list[dict], how_to_make: str) -> None:
        self.keys: list[str] = []
        self._places: list[tuple[Path, dict[str, tuple[int, int]]]] = []
        self._files: dict[Path, int] = {}
        self._owner = os.getpid()
        for shard in shards:
            path = folder / shard["file"]
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"is damaged ({size} bytes, {shard['bytes']} expected)"
                raise UserError(f"shard {path} {found}: delete {folder} and run `{how_to_make}`")
            if not index_path(path).is_file():
                raise UserError(f"{index_path(path)} is missing: delete {folder} and run `{how_to_make}`")
            for key, members in json.loads(index_path(path).read_text()):
                self.keys.append(key)
                self._places.append((path, members))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def read(self, number: int) -> dict[str, bytes]:
        """The files of one sample: extension -> bytes."""
        if self._owner != os.getpid():  # forked: file descriptors are not shared
            self._files, self._owner = {}, os.getpid()
        path, members = self._places[number]
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDONLY)
        return {ext: os.pread(self._files[path], size, offset) for ext, (offset, size) in members.items()}


def fingerprint(folder: Path, manifest: dict) -> str:
    """One hash of the bytes of all shards of all splits, read anew."""
    hashes = [sha256(folder / shard["file"]) for shards in manifest["splits"].values() for shard in shards]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
