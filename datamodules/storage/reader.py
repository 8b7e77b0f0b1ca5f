"""Random access to the samples of shards."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ..core.checks import read_bytes
from ..core.errors import BadSampleError, UserError, reason
from . import remote
from .files import parse_json
from .index import Index, index_path, parse_index
from .manifest import place

log = logging.getLogger(__name__)
OPEN_FILES = 128  # of one reader in one process


class Sample(dict[str, bytes]):
    """The bytes of the files of one sample, by extension. What is missing is a BadSampleError that names the sample.

    Args:
        key: name of the sample.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def __missing__(self, extension: str) -> bytes:
        raise BadSampleError(f"{self.key} has no {extension}")

    def metadata(self) -> dict[str, Any]:
        """The content of the json. Raises BadSampleError if it is not an object."""
        try:
            content = parse_json(self["json"])
        except ValueError as error:
            raise BadSampleError(f"{self.key}.json is not JSON ({reason(error)})") from error
        if not isinstance(content, dict):
            raise BadSampleError(f"{self.key}.json is not a JSON object")
        return content

    def label(self, classes: int) -> int:
        """The `label` in the json, a class from 0 to `classes` - 1. Raises BadSampleError for anything else."""
        return self._classes([self.metadata().get("label")], "label", classes)[0]

    def labels(self, classes: int) -> list[int]:
        """The list `labels` in the json, of classes from 0 to `classes` - 1. Raises BadSampleError for anything else."""
        return self._classes(self.metadata().get("labels"), "labels", classes)

    def _classes(self, found: Any, name: str, classes: int) -> list[int]:
        if isinstance(found, list) and all(type(number) is int and 0 <= number < classes for number in found):
            return found
        raise BadSampleError(f"{self.key}.json lacks {name} from 0 to {classes - 1}")

    def seconds(self) -> float:
        """The `seconds` in the json, at least 0. Raises BadSampleError for anything else."""
        found = self.metadata().get("seconds")
        if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found < 1e9:
            return float(found)
        raise BadSampleError(f"{self.key}.json lacks its length in seconds")


class ShardReader:
    """Random access to the samples of shards, by index and from any process.

    Args:
        folder: a path, or any URL that fsspec supports. For a URL, all indices are read immediately, and each shard is
            fetched when first read (see `remote.fetch`).
        shards: entries of the manifest, `manifest["splits"][name]["shards"]`.
        how_to_make: the command that makes the folder, for error messages.

    Raises:
        UserError: if a shard is missing or its size differs from the manifest, or an index is damaged.
    """

    def __init__(self, folder: Path | str, shards: list[dict], how_to_make: str = "the command that made it") -> None:
        self.keys: list[str] = []
        self._url, self._folder, self._shards = remote.url(folder), Path(folder), shards
        self._files: dict[int, int] = {}
        self._hashed: set[int] = set()  # remote shards whose copy in the cache this process has hashed
        self._extensions: list[str] = []
        # arrays, since a million dicts would take a gigabyte in every worker
        counts: list[np.ndarray] = [np.zeros(1, np.int64)]  # per sample: its number of files
        entries: list[np.ndarray] = [
            np.empty((0, 5), np.int64)
        ]  # per file: shard, extension, offset, size, CRC-32 or -1
        for number, index in enumerate(self._read_indices(how_to_make)):
            self.keys += index.keys
            self._extensions += [ext for ext in index.extensions if ext not in self._extensions]
            codes = np.array([self._extensions.index(ext) for ext in index.extensions], np.int64)
            shard = np.full(len(index.files), number)
            entries.append(np.column_stack([shard, codes[index.files[:, 0]], index.files[:, 1:]]))
            counts.append(index.counts)
        self._first = np.concatenate(counts).cumsum()
        self._entries = np.concatenate(entries)
        if len(set(self.keys)) < len(self.keys):
            raise UserError(f"{folder} has two samples of one name: delete it and run `{how_to_make}`")

    def _read_indices(self, how_to_make: str) -> Iterator[Index]:
        names = [index_path(Path(shard["file"])).name for shard in self._shards]
        hashes = [shard.get("index_sha256") for shard in self._shards]  # None before format 2
        where, contents = self._url or self._folder, {}
        if self._url is not None:
            contents = remote.read_files(self._url, dict(zip(names, hashes, strict=True)))
        for name, hash, shard in zip(names, hashes, self._shards, strict=True):
            if remote.url(place(where, shard)) is None:
                self._check_size(shard, how_to_make)
            content = contents[name] if name in contents else self._read_local(name)
            try:
                index = parse_index(content, shard["samples"], shard["bytes"])
                if hash not in (None, hashlib.sha256(content).hexdigest()):
                    raise ValueError("its bytes have changed since it was written, by their SHA-256")
            except ValueError as error:
                raise UserError(f"{where}/{name} is damaged ({reason(error)}): {repair(where)}") from error
            yield index

    def _check_size(self, shard: dict, how_to_make: str) -> None:
        path = Path(place(self._folder, shard))
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            found = "is missing" if size is None else f"is damaged ({size} bytes, expected {shard['bytes']})"
            raise UserError(f"shard {path} {found}: delete {self._folder} and run `{how_to_make}`")

    def _read_local(self, name: str) -> bytes:
        try:
            return read_bytes(self._folder / name)
        except FileNotFoundError as error:
            raise UserError(f"{self._folder / name} is missing: {repair(self._folder)}") from error
        except OSError as error:
            raise UserError(f"{self._folder / name} cannot be read ({error.strerror}): check it") from error

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}, "_hashed": set()}

    def read(self, number: int, only: Collection[str] | None = None) -> Sample:
        """Reads the files of one sample, by extension. only: the extensions to read, by default all.

        Raises:
            BadSampleError: if a file cannot be read, or has other bytes than those that were written.
        """
        sample = Sample(self.keys[number])
        for shard, code, offset, size, checksum in self._entries[
            self._first[number] : self._first[number + 1]
        ].tolist():
            extension = self._extensions[code]
            if only is None or extension in only:
                try:
                    # pread keeps no position, so a file opened before a fork can be read after it
                    content = os.pread(self._files[shard], size, offset)
                except (KeyError, OSError):
                    content = b""
                if len(content) != size or crc32(content) != checksum != -1:
                    content = self._read_again(f"{sample.key}.{extension}", shard, offset, size, checksum)
                sample[extension] = content
        return sample

    def _read_again(self, name: str, shard: int, offset: int, size: int, checksum: int) -> bytes:
        """Opens a shard and reads a file. A copy in the cache that gives other bytes is hashed, and replaced if it has
        changed."""
        problem = None
        try:
            for distrust in (False, True) if remote.url(self._address(shard)) else (False,):
                content = os.pread(self._open(shard, distrust), size, offset)
                if not (problem := damage(content, size, checksum)):
                    return content
        except OSError as error:  # such as a broken sector
            problem = f"cannot be read: {error.strerror}"
        raise BadSampleError(f"{name} {problem}, in {self._address(shard)}")

    def _open(self, shard: int, distrust: bool = False) -> int:
        """Opens a shard, fetched if it is remote, and returns the number of the file."""
        line = self._shards[shard]
        path = Path(self._address(shard))
        if remote.url(self._address(shard)) is not None:
            # before format 2, files have no checksums, and only hashing the copy finds what has changed
            distrust = distrust or ("index_sha256" not in line and shard not in self._hashed)
            path = remote.fetch(self._address(shard), line["sha256"], line["bytes"], distrust)
            self._hashed.add(shard)
        if shard in self._files:
            os.close(self._files.pop(shard))
        elif len(self._files) >= OPEN_FILES:
            os.close(self._files.pop(next(iter(self._files))))
        self._files[shard] = os.open(path, os.O_RDONLY)
        return self._files[shard]

    def _address(self, shard: int) -> str:
        return place(self._url or self._folder, self._shards[shard])


def damage(content: bytes, size: int, checksum: int) -> str | None:
    """What is wrong with the bytes of a file; None if nothing is."""
    if len(content) != size:
        return "was truncated while in use"
    return "is damaged (CRC-32)" if crc32(content) != checksum != -1 else None


def repair(folder: Path | str) -> str:
    """What to do about a damaged index."""
    command = f"run `python -m datamodules.prepare reindex {'DIR' if remote.url(folder) else folder}`"
    return f"{command} where it lies" if remote.url(folder) else command
