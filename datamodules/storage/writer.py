"""Writing of shards and their indices, in worker processes; what was finished before a kill is kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import webdataset

from ..core.checks import read_bytes
from ..core.errors import BadSampleError, TooShort, UserError
from ..core.progress import track
from . import remote
from .files import parse_json, sha256, write_json, written_whole
from .index import escapes_folder, index_path, make_index
from .manifest import (
    MANIFEST,
    SHARD,
    check_fields,
    joint_hash,
    listed_shards,
    read_manifest,
    write_manifest,
)
from .workers import NO_ROOM, disk_errors_explained, one_at_a_time, start_worker

log = logging.getLogger(__name__)
Item = TypeVar("Item")
RECORD = {"made_from": str, "shard": dict, "unreadable": list, "too_short": list}


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
    if remote.url(folder) is not None:
        raise UserError(f"{folder} is a URL: write to a folder of this machine and copy it")
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST).is_file():
            manifest = same_manifest(folder, made_from, made_with)
            if leftovers(folder):  # killed after it wrote the manifest
                with suppress(OSError), one_at_a_time(folder):
                    remove_leftovers(folder)
            return manifest
        with one_at_a_time(folder):
            if (folder / MANIFEST).is_file():  # written while waiting for the lock
                return same_manifest(folder, made_from, made_with)
            refuse_other_records(folder, made_from)
            for part in folder.glob("*.part"):
                part.unlink()
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
            write_manifest(folder, manifest)
            remove_leftovers(folder)
    for split, entry in manifest["splits"].items():
        if entry["written"] < entry["expected"]:
            first = [*entry["reasons"]["unreadable"], *entry["reasons"]["too_short"]][0]
            log.warning(
                "%s: %d of %d %s samples were written; the first that was not: %s. The others are in %s",
                *(folder, entry["written"], entry["expected"], split, first, MANIFEST),
            )
    return read_manifest(folder)


def leftovers(folder: Path) -> list[Path]:
    """What only an unfinished folder needs."""
    return [*folder.glob("*.record.json"), *folder.glob("*.part"), *folder.glob(".lock")]


def remove_leftovers(folder: Path) -> None:
    for path in leftovers(folder):
        path.unlink(missing_ok=True)


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
    if (record := read_record(record_path)) and still_there(folder, record["shard"]):
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


def read_record(path: Path) -> dict | None:
    """The record of a finished shard; None if there is none or it is from an older format."""
    try:
        record = parse_json(read_bytes(path))
        check_fields(record, RECORD, {}, path.name)
        check_fields(record["shard"], SHARD, {}, path.name)
    except (OSError, ValueError):
        return None
    return record


def still_there(folder: Path, shard: dict) -> bool:
    path = folder / shard["file"]
    if not (path.is_file() and path.stat().st_size == shard["bytes"] and index_path(path).is_file()):
        return False
    return sha256(index_path(path)) == shard["index_sha256"]


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
    keys = set()
    with written_whole(path) as part:
        # a fixed time, so that equal samples give equal bytes
        with part.open("wb") as file, webdataset.TarWriter(file, mtime=0, encoder=True) as writer:
            for sample in samples:
                key = sample["__key__"]
                if key in keys or "." in key or not key or escapes_folder(key):
                    raise UserError(
                        f"sample {key!r} in {path}: keys must be unique, relative and not empty, and contain no dot"
                    )
                keys.add(key)
                writer.write(sample)
        return {
            "file": path.name,
            "samples": len(keys),
            "bytes": part.stat().st_size,
            "sha256": sha256(part),
            "index_sha256": write_index(part, index_path(path)),
        }


def write_index(shard: Path, path: Path) -> str:
    """Writes the index of a tar. Returns its SHA-256."""
    write_json(path, make_index(shard), indent=None)
    return sha256(path)


def reindex(folder: Path) -> None:
    """Writes the indices and the manifest anew, from shards whose bytes are as they were written.

    This repairs damaged indices, and brings a folder of an older format to the present one. The fingerprint stays the same.

    Raises:
        UserError: if a shard is missing or its bytes have changed.
    """
    if remote.url(folder) is not None:
        raise UserError(f"{folder} is remote: reindex it where it lies")
    with disk_errors_explained(folder):
        manifest = read_manifest(folder)
        if "adopted" in manifest["made_with"]:
            raise UserError(f"the shards of {folder} were adopted: run `python -m datamodules.prepare adopt` again")
        with one_at_a_time(folder):
            lines = listed_shards(manifest)
            for line in track(lines, f"indexing {folder}", total=len(lines), unit="shards"):
                path = folder / line["file"]
                if not path.is_file() or sha256(path) != line["sha256"]:
                    raise UserError(f"{path} is missing or damaged (sha256): delete {folder} and prepare it again")
                line["index_sha256"] = write_index(path, index_path(path))
            write_manifest(folder, manifest)
            remove_leftovers(folder)


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
        if (record := read_record(path)) and record["made_from"] != made_from:
            raise UserError(
                f"{folder} holds unfinished shards made from other items or settings ({path.name}): delete it or choose "
                "another --out"
            )
