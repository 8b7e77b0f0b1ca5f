"""Tar shards in the webdataset convention (key.mp4, key.json, ...) with an index beside each, and a manifest.

    DIR/manifest.json             samples written, samples left out and why, settings, licence
    DIR/train-000000.tar          readable with webdataset and tar
    DIR/train-000000.index.json   [[key, {extension: [offset, size]}], ...], for random access
    DIR/train-000000.record.json  only while the folder is unfinished: this shard is complete, and its settings

The manifest is written last: a folder without one is unfinished and never read. We read the index ourselves because
webdataset 1.0.2 dropped the `wids` of older releases and only streams tars in order.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import webdataset

from ..core.errors import BadSampleError, TooShort, UserError
from ..core.progress import track
from . import remote
from .workers import NO_ROOM, disk_errors_explained, one_at_a_time, start_worker

Item = TypeVar("Item")
MANIFEST = "manifest.json"
SHARD_FILE, SHA256 = re.compile(r"[\w-]+\.tar"), re.compile(r"[0-9a-f]{64}")
OPEN_FILES = 128  # of one reader in one process
MAX_REHASHED = 2**30  # bytes that `fingerprint` reads again, which takes seconds


def write_shards(
    folder: Path,
    name: str,
    splits: Mapping[str, Sequence[Item]],
    make: Callable[[Item], dict],
    *,
    made_with: dict,
    licence: str,
    samples_per_shard: int = 500,
    workers: int = 2,
) -> dict:
    """Writes a data set as shards and returns its manifest. Equal items and settings give equal bytes.

    If it was killed and is called again, it keeps the finished shards. For a finished folder it writes nothing.

    Args:
        folder: where to write.
        name: name of the data set.
        splits: one item per sample of each split. Items must pickle, and their repr must identify them (a name, a path, a
            tuple of these).
        make: turns an item into {"__key__": name, extension: content}, where the content is bytes, text, or a dict for
            json. Must be a module-level function or a functools.partial of one, since worker processes call it. It raises
            BadSampleError for a source that cannot be read and TooShort for one that is too short, with a message that
            names the source; an OSError counts as unreadable.
        made_with: the settings that the samples depend on.
        licence: licence of the data.
        samples_per_shard: samples per tar file.
        workers: worker processes.

    Raises:
        UserError: if the disk is full, or if the folder holds other items or settings.
    """
    items = {split: [repr(item) for item in split_items] for split, split_items in splits.items()}
    described = json.dumps([name, made_with, samples_per_shard, items], sort_keys=True)
    made_from = hashlib.sha256(described.encode()).hexdigest()
    jobs = [
        (split, f"{split}-{number:06d}.tar", split_items[start : start + samples_per_shard])
        for split, split_items in splits.items()
        for number, start in enumerate(range(0, len(split_items), samples_per_shard))
    ]
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST).is_file():
            return same_manifest(folder, made_from, made_with)
        with one_at_a_time(folder):
            if (folder / MANIFEST).is_file():  # written while waiting for the lock
                return same_manifest(folder, made_from, made_with)
            refuse_other_records(folder, made_from)
            with ProcessPoolExecutor(workers, initializer=start_worker) as pool:
                written = pool.map(partial(write_or_keep, folder=folder, make=make, made_from=made_from), jobs)
                records = list(track(written, f"writing {name} to {folder}", total=len(jobs), unit="shards"))
            lines = {split: [r for (s, *_), r in zip(jobs, records, strict=True) if s == split] for split in splits}
            manifest = {
                "name": name,
                "licence": licence,
                "made_with": made_with,
                "made_from": made_from,
                "fingerprint": joint_hash([record["shard"]["sha256"] for record in records]),
                "splits": {split: split_entry(len(items[split]), lines[split]) for split in splits},
            }
            write_json(folder / MANIFEST, manifest)
            for left in (*folder.glob("*.record.json"), *folder.glob("*.part"), folder / ".lock"):
                left.unlink(missing_ok=True)
    return read_manifest(folder)


def split_entry(expected: int, records: list[dict]) -> dict:
    """The entry of one split in the manifest."""
    unreadable = [reason for record in records for reason in record["unreadable"]]
    too_short = [reason for record in records for reason in record["too_short"]]
    return {
        "expected": expected,
        "written": sum(record["shard"]["samples"] for record in records),
        "unreadable": len(unreadable),
        "too_short": len(too_short),
        "reasons": {"unreadable": unreadable, "too_short": too_short},
        "shards": [record["shard"] for record in records],
    }


def write_or_keep(job: tuple[str, str, Sequence], folder: Path, make: Callable[[Any], dict], made_from: str) -> dict:
    """Writes one shard and then its record, with its contents and the samples left out. Keeps a finished shard."""
    _, file, items = job
    path = folder / file
    record_path = path.with_suffix(".record.json")
    if record_path.is_file():
        record = json.loads(record_path.read_text())
        if path.is_file() and path.stat().st_size == record["shard"]["bytes"] and index_path(path).is_file():
            return record
    unreadable: list[str] = []
    too_short: list[str] = []

    def samples() -> Iterator[dict]:
        for item in items:
            try:
                yield make_sample(make, item)
            except TooShort as reason:
                too_short.append(str(reason))
            except BadSampleError as reason:
                unreadable.append(str(reason))

    shard = write_shard(path, samples())
    record = {"made_from": made_from, "shard": shard, "unreadable": unreadable, "too_short": too_short}
    write_json(record_path, record)
    return record


def make_sample(make: Callable[[Any], dict], item: Any) -> dict:
    """Calls `make`. An OSError counts as a bad sample, unless the disk is full."""
    try:
        return make(item)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise BadSampleError(str(error)) from error


def write_shard(path: Path, samples: Iterable[dict]) -> dict:
    """Writes the samples (see `make` in `write_shards`) to a tar, and its index. Returns its entry in the manifest."""
    part = path.with_suffix(".tar.part")
    keys = set()
    try:
        # a fixed time, so that equal samples give equal bytes
        with part.open("wb") as file, webdataset.TarWriter(file, mtime=0, encoder=True) as writer:
            for sample in samples:
                key = sample["__key__"]
                if key in keys or "." in key:
                    raise UserError(f"sample {key} in {path}: keys must be unique and contain no dot")
                keys.add(key)
                writer.write(sample)
        index: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(part) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                index.setdefault(key, {})[extension] = (member.offset_data, member.size)
        write_json(index_path(path), list(index.items()), indent=None)
        line = {"file": path.name, "samples": len(index), "bytes": part.stat().st_size, "sha256": sha256(part)}
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return line


def index_path(shard: Path) -> Path:
    return shard.with_suffix(".index.json")


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=indent) + "\n")
    os.replace(part, path)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_hash(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def same_manifest(folder: Path, made_from: str, made_with: dict) -> dict:
    """The manifest of a finished folder. Raises UserError if it was made from other items or settings."""
    manifest = read_manifest(folder)
    if manifest["made_from"] != made_from:
        old, new = manifest["made_with"], json.loads(json.dumps(made_with))
        others = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)] or ["items"]
        raise UserError(
            f"{folder} holds {manifest['name']} made from other items or settings ({', '.join(others)} differ): delete it or "
            "choose another --out"
        )
    return manifest


def refuse_other_records(folder: Path, made_from: str) -> None:
    for path in folder.glob("*.record.json"):
        if json.loads(path.read_text())["made_from"] != made_from:
            raise UserError(
                f"{folder} holds unfinished shards made from other items or settings ({path.name}): delete it or choose "
                "another --out"
            )


def finished(folder: Path | str) -> bool:
    """Whether the folder has a manifest. A remote folder is assumed to have one, which `read_manifest` checks."""
    return remote.url(folder) is not None or (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path | str, how_to_make: str = "the command that made it") -> dict:
    """Reads the manifest of a finished folder, a path or any URL that fsspec supports.

    Raises UserError with the command `how_to_make` if there is no valid manifest.
    """
    if url := remote.url(folder):
        text = remote.read_text(f"{url}/{MANIFEST}")
    elif finished(folder):
        text = (Path(folder) / MANIFEST).read_text()
    else:
        raise UserError(f"{folder} has no {MANIFEST}: run `{how_to_make}`")
    manifest = json.loads(text)
    if "fingerprint" not in manifest:
        raise UserError(f"{folder}/{MANIFEST} has an outdated format: delete {folder} and run `{how_to_make}`")
    for split in manifest["splits"].values():
        for shard in split["shards"]:  # these name files in the folder and in the cache
            if not (SHARD_FILE.fullmatch(shard["file"]) and SHA256.fullmatch(shard["sha256"])):
                raise UserError(
                    f"{folder}/{MANIFEST} has the invalid shard name {shard['file']!r}: prepare the folder again"
                )
    return manifest


def escapes_folder(name: str) -> bool:
    """Whether unpacking a tar member of this name would write outside of the folder."""
    return name.startswith("/") or ".." in name.split("/")


class ShardReader:
    """Random access to the samples of shards, by index and from any process.

    Args:
        folder: a path, or any URL that fsspec supports. For a URL, all indices are read immediately, and each shard is
            fetched when first read (see `remote.fetch`).
        shards: entries of the manifest, `manifest["splits"][name]["shards"]`.
        how_to_make: the command that makes the folder, for error messages.

    Raises:
        UserError: if a shard is missing or its size differs from the manifest.
    """

    def __init__(self, folder: Path | str, shards: list[dict], how_to_make: str = "the command that made it") -> None:
        self.keys: list[str] = []
        self._url, self._folder, self._shards = remote.url(folder), Path(folder), shards
        self._files: dict[int, int] = {}
        self._extensions: list[str] = []
        # arrays, since a million dicts would take a gigabyte in every worker
        first: list[np.ndarray] = []  # per sample: its first row of entries
        entries: list[np.ndarray] = [np.empty((0, 4), np.int64)]  # per file: shard, extension, offset, size
        rows = 0
        for number, index in enumerate(self._read_indices(how_to_make)):
            if outside := next((key for key, _ in index if escapes_folder(key)), None):
                raise UserError(
                    f"{folder}: the sample {outside!r} would be unpacked outside of the folder: prepare it again"
                )
            self.keys += [key for key, _ in index]
            self._extensions += sorted({ext for _, files in index for ext in files} - set(self._extensions))
            code = {ext: number for number, ext in enumerate(self._extensions)}
            found = [(number, code[ext], *span) for _, files in index for ext, span in files.items()]
            entries.append(np.array(found, np.int64).reshape(-1, 4))
            counts = np.array([len(files) for _, files in index], np.int64)
            first.append(rows + np.cumsum(counts) - counts)
            rows += len(found)
        self._first = np.concatenate([*first, [rows]]).astype(np.int64)
        self._entries = np.concatenate(entries)

    def _read_indices(self, how_to_make: str) -> Iterator[list]:
        if self._url is not None:
            names = [index_path(Path(shard["file"])).name for shard in self._shards]
            yield from map(json.loads, remote.read_texts(self._url, names))
            return
        for shard in self._shards:
            path = self._folder / shard["file"]
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"is damaged ({size} bytes, expected {shard['bytes']})"
                raise UserError(f"shard {path} {found}: delete {self._folder} and run `{how_to_make}`")
            if not index_path(path).is_file():
                raise UserError(f"{index_path(path)} is missing: delete {self._folder} and run `{how_to_make}`")
            yield json.loads(index_path(path).read_text())

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}

    def read(self, number: int, only: Collection[str] | None = None) -> dict[str, bytes]:
        """Reads the files of one sample, by extension. only: the extensions to read, by default all."""
        rows = self._entries[self._first[number] : self._first[number + 1]].tolist()
        return {
            self._extensions[ext]: self._read(shard, offset, size)
            for shard, ext, offset, size in rows
            if only is None or self._extensions[ext] in only
        }

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard not in self._files:
            if len(self._files) == OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self._path(shard), os.O_RDONLY)
        # pread keeps no position, so a file opened before a fork can be read after it
        content = os.pread(self._files[shard], size, offset)
        if len(content) != size:
            raise BadSampleError(f"{self._path(shard)} was truncated while in use")
        return content

    def _path(self, number: int) -> Path:
        shard = self._shards[number]
        if self._url is None:
            return self._folder / shard["file"]
        return remote.fetch(f"{self._url}/{shard['file']}", f"{shard['sha256']}.tar", shard["bytes"])


def fingerprint(folder: Path | str, manifest: dict) -> str:
    """One hash of the bytes of all shards of all splits.

    Local shards of up to MAX_REHASHED bytes are read again. Otherwise it is the fingerprint in the manifest, which
    `python -m datamodules.prepare lint` verifies.
    """
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    if remote.url(folder) is not None or sum(shard["bytes"] for shard in shards) > MAX_REHASHED:
        return manifest["fingerprint"]
    return joint_hash([sha256(Path(folder) / shard["file"]) for shard in shards])
