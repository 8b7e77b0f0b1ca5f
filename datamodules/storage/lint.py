"""Inspection of shards: `findings` checks tars, indices and manifest against each other, `print_stats` counts samples."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..core.checks import read_bytes
from ..core.errors import UserError, one_line, reason
from ..core.progress import track
from . import remote
from .files import parse_json, sha256
from .index import escapes_folder, index_path, members, parse_index
from .manifest import joint_hash, listed_shards, local_shard, read_manifest
from .reader import ShardReader


def open_image(content: bytes) -> None:
    from PIL import Image

    Image.open(io.BytesIO(content))


def open_sound(content: bytes) -> None:
    import soundfile

    soundfile.info(io.BytesIO(content))


def open_video(content: bytes) -> None:
    import av

    av.open(io.BytesIO(content)).close()


OPENERS: dict[str, Callable[[bytes], object]] = {
    "json": parse_json,
    "txt": bytes.decode,
    "npy": lambda content: np.load(io.BytesIO(content)),
    "npz": lambda content: np.load(io.BytesIO(content)),
    **dict.fromkeys(("jpg", "jpeg", "png", "webp"), open_image),
    **dict.fromkeys(("wav", "flac", "ogg", "mp3"), open_sound),
    **dict.fromkeys(("mp4", "mkv", "webm", "m4a"), open_video),
}


def findings(folder: Path) -> Iterator[str]:
    """Problems of a folder of shards, one line each. Reads every byte; media are opened but not decoded."""
    if remote.url(folder) is not None:
        raise UserError(f"{folder} is remote, and lint reads every byte: copy the folder and lint the copy")
    manifest = read_manifest(folder)
    if "format" not in manifest:
        yield (
            "manifest: is of an older format, in which damage to an index or to a single file can go unnoticed: run "
            f"`python -m datamodules.prepare reindex {folder}`"
        )
    split_of: dict[str, str] = {}
    for split, entry in manifest["splits"].items():
        lines = entry["shards"]
        counted = entry["written"] + entry["unreadable"] + entry["too_short"]
        if counted != entry["expected"]:
            yield f"manifest: {entry['expected']} {split} samples were expected, {counted} are accounted for"
        if (held := sum(line["samples"] for line in lines)) != entry["written"]:
            yield f"manifest: {entry['written']} {split} samples were written, its shards hold {held}"
        for line in track(lines, f"checking {split}", total=len(lines), unit="shards"):
            try:
                if "adopted" in manifest["made_with"]:
                    yield from adopted_findings(folder, line)
                else:
                    yield from shard_findings(folder / line["file"], line, split, split_of)
            except OSError as error:
                yield f"{line['file']}: cannot be read ({error.strerror})"
    listed = listed_shards(manifest)
    if joint_hash([line["sha256"] for line in listed]) != manifest["fingerprint"]:
        yield "manifest: the fingerprint does not match the shards"
    names, ours = {line["file"] for line in listed}, "adopted" not in manifest["made_with"]
    for path in sorted(folder.iterdir()):
        if path.suffix == ".part" or (ours and path.suffix == ".tar" and path.name not in names):
            yield f"{path.name}: is not part of the data set"


def adopted_findings(folder: Path, line: dict) -> Iterator[str]:
    """Problems of one adopted tar: how its files are named is not checked again."""
    path, index = local_shard(folder, line), index_path(folder / line["file"])
    if not path.is_file():
        yield f"{path}: is missing"
    elif sha256(path) != line["sha256"]:
        yield f"{path}: its bytes have changed since it was adopted (sha256)"
    if not index.is_file() or sha256(index) != line["index_sha256"]:
        yield f"{index.name}: is missing or has changed since it was written (sha256)"


def shard_findings(path: Path, line: dict, split: str, split_of: dict[str, str]) -> Iterator[str]:
    """Problems of one tar, its index and its line in the manifest. split_of: the split of every key seen so far."""
    if not path.is_file():
        yield f"{path.name}: is missing"
        return
    if (size := path.stat().st_size) != line["bytes"]:
        yield f"{path.name}: has {size} bytes, the manifest says {line['bytes']}"
    elif sha256(path) != line["sha256"]:
        yield f"{path.name}: its bytes have changed since it was written (sha256)"
    index: dict[str, dict[str, list[int]]] = {}
    content, problem = b"", None
    try:
        content = read_bytes(index_path(path))
        parse_index(content, line["samples"], line["bytes"])
        index = dict(parse_json(content))
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({reason(error)})"
    found: dict[str, dict[str, list[int]]] = {}
    try:
        for member in members(path):
            key, extension = member.key, member.extension
            if escapes_folder(member.name):
                yield f"{path.name}: {member.name} would be unpacked outside of the folder"
                continue
            if key not in found and key in split_of:
                yield f"{path.name}: {key} is already in {split_of[key]}"
            elif extension in found.get(key, ()):
                yield f"{path.name}: {member.name} occurs twice"
            split_of.setdefault(key, split)
            indexed = index.get(key, {}).get(extension, member.span)
            found.setdefault(key, {})[extension] = member.span[: len(indexed)]
            if member.content is None:
                yield f"{path.name}: {member.name} is not a whole file"
            elif indexed[:2] == member.span[:2] and indexed != found[key][extension]:
                found[key][extension] = indexed  # told once
                yield f"{path.name}: {member.name} is damaged (CRC-32)"
            elif problem_of_file := open_error(extension, member.content):
                yield f"{path.name}: {member.name} {problem_of_file}"
    except Exception as error:  # tarfile raises all kinds of exceptions
        yield f"{path.name}: is not a complete tar ({reason(error)})"
    if len(found) != line["samples"]:
        yield f"{path.name}: has {len(found)} samples, the manifest says {line['samples']}"
    if problem is None and list(index.items()) != list(found.items()):
        problem = "does not match the tar"
    elif problem is None and line.get("index_sha256") not in (None, hashlib.sha256(content).hexdigest()):
        problem = "its bytes have changed since it was written (sha256)"
    if problem:
        yield f"{index_path(path).name}: {problem}"


def open_error(extension: str, content: bytes) -> str | None:
    """Why a file of this type cannot be opened; None if it can, or if the type is unknown."""
    opener = OPENERS.get(extension.rpartition(".")[2].lower())
    try:
        if opener is not None:
            opener(content)
    except Exception as error:  # each library raises its own
        return f"cannot be opened ({reason(error)})"
    return None


def print_stats(folder: Path | str) -> None:
    """Prints a table with one row per split.

    Classes and hours are counted from `label` or `labels` and `seconds` in the json of the samples. They are left out for a
    remote folder, where this would fetch every shard.
    """
    manifest = read_manifest(folder)
    table = Table(
        title=one_line(f"{manifest['name']} in {folder}"),
        caption=one_line(f"licence: {manifest['licence']}"),
        title_justify="left",
    )
    for column in ("split", "samples", "shards", "MB", "classes", "hours", "unreadable", "too short"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, entry in manifest["splits"].items():
        classes, seconds = set(), 0.0
        if remote.url(folder) is None:
            reader = ShardReader(folder, entry["shards"])
            for number in track(range(len(reader.keys)), f"reading {split}", total=len(reader.keys), unit="samples"):
                sample = reader.read(number, only=("json",))
                metadata = sample.metadata() if sample else {}
                labels = metadata.get("labels", metadata.get("label", []))
                classes.update(map(repr, labels if isinstance(labels, list) else [labels]))
                seconds += sample.seconds() if "seconds" in metadata else 0.0
        table.add_row(
            split,
            f"{entry['written']:,} of {entry['expected']:,}",
            f"{len(entry['shards']):,}",
            f"{sum(line['bytes'] for line in entry['shards']) / 1e6:,.1f}",
            f"{len(classes):,}" if classes else "",
            f"{seconds / 3600:,.2f}" if seconds else "",
            f"{entry['unreadable']:,}",
            f"{entry['too_short']:,}",
        )
    Console(width=110, markup=False, emoji=False).print(table)  # what others wrote is not markup
