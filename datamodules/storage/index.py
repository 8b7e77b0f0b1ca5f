"""The index of a shard: where each file of each sample lies in the tar, and its checksum.

[[key, {extension: [offset, size, CRC-32]}], ...]; before format 2 without the CRC-32. The CRC-32 is checked whenever a
file is read: it finds what a disk may do to a file, in half the time of the next faster hash of Python.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from .files import parse_json


class Member(NamedTuple):
    """One file in a tar. `content` is None for a member that is not a plain file."""

    name: str
    offset: int
    size: int
    content: bytes | None

    @property
    def key(self) -> str:
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.name.partition(".")[2]

    @property
    def span(self) -> list[int]:
        return [self.offset, self.size, crc32(self.content or b"")]


class Index(NamedTuple):
    """The parsed index of one shard. `files` has one row per file: code of its extension, offset, size, CRC-32 or -1."""

    keys: list[str]
    counts: np.ndarray
    extensions: list[str]
    files: np.ndarray


def index_path(shard: Path) -> Path:
    return shard.with_suffix(".index.json")


def members(path: Path) -> Iterator[Member]:
    """All members of a tar in their order. Raises TarError, ValueError or OSError if the tar is damaged."""
    length = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            plain = member.isreg() and not member.issparse() and member.offset_data + member.size <= length
            file = tar.extractfile(member) if plain else None
            yield Member(member.name, member.offset_data, member.size, file.read() if file else None)


def make_index(path: Path) -> list:
    """The index of a tar."""
    index: dict[str, dict[str, list[int]]] = {}
    for member in members(path):
        index.setdefault(member.key, {})[member.extension] = member.span
    return [[key, files] for key, files in index.items()]


def parse_index(content: bytes, samples: int, length: int) -> Index:
    """Parses and checks an index. Raises ValueError for anything else.

    Args:
        content: the bytes of the file.
        samples: samples of the shard.
        length: bytes of the shard, in which all files must lie.
    """
    index = parse_json(content)
    try:
        keys = [key for key, _ in index]
        spans = [span for _, files in index for span in files.values()]
        extensions = sorted({extension for _, files in index for extension in files})
        code = {extension: number for number, extension in enumerate(extensions)}
        codes = np.array([code[extension] for _, files in index for extension in files], np.int64)
        counts = np.array([len(files) for _, files in index], np.int64)
        numbers = np.array(spans) if spans else np.empty((0, 3), np.int64)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError("it is not a list of keys with their files") from error
    if numbers.dtype != np.int64 or numbers.ndim != 2 or numbers.shape[1] not in (2, 3):
        raise ValueError("a file does not have an offset and a size")
    if not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise ValueError("its keys are not different texts")
    if len(keys) != samples:
        raise ValueError(f"it has {len(keys)} samples instead of {samples}")
    if outside := next((key for key in keys if escapes_folder(key)), None):
        raise ValueError(f"the sample {outside!r} would be unpacked outside of the folder")
    if any(not extension or "/" in extension for extension in extensions):
        raise ValueError("the extension of a file is invalid")
    places = numbers[:, :2]
    if (numbers < 0).any() or places.max(initial=0) > length or places.sum(axis=1).max(initial=0) > length:
        raise ValueError("a file lies outside of the shard")
    checksums = numbers[:, 2] if numbers.shape[1] == 3 else np.full(len(numbers), -1)
    return Index(keys, counts, extensions, np.column_stack([codes, numbers[:, 0], numbers[:, 1], checksums]))


def escapes_folder(name: str) -> bool:
    """Whether unpacking a tar member of this name would write outside of the folder."""
    return name.startswith("/") or ".." in name.split("/")
