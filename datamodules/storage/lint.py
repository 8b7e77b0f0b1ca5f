"""Inspection of shards: `findings` checks tars, indices and manifest against each other, `print_stats` counts samples."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..core.errors import UserError
from ..core.progress import track
from . import remote
from .shards import ShardReader, escapes_folder, index_path, joint_hash, read_manifest, sha256


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
    "json": json.loads,
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
    split_of: dict[str, str] = {}
    for split, entry in manifest["splits"].items():
        lines = entry["shards"]
        counted = entry["written"] + entry["unreadable"] + entry["too_short"]
        if counted != entry["expected"]:
            yield f"manifest: {entry['expected']} {split} samples were expected, {counted} are accounted for"
        if (held := sum(line["samples"] for line in lines)) != entry["written"]:
            yield f"manifest: {entry['written']} {split} samples were written, its shards hold {held}"
        for line in track(lines, f"checking {split}", total=len(lines), unit="shards"):
            yield from shard_findings(folder / line["file"], line, split, split_of)
    listed = [line for entry in manifest["splits"].values() for line in entry["shards"]]
    if joint_hash([line["sha256"] for line in listed]) != manifest["fingerprint"]:
        yield "manifest: the fingerprint does not match the shards"
    names = {line["file"] for line in listed}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".part" or (path.suffix == ".tar" and path.name not in names):
            yield f"{path.name}: is not part of the data set"


def shard_findings(path: Path, line: dict, split: str, split_of: dict[str, str]) -> Iterator[str]:
    """Problems of one tar, its index and its line in the manifest. split_of: the split of every key seen so far."""
    if not path.is_file():
        yield f"{path.name}: is missing"
        return
    if (size := path.stat().st_size) != line["bytes"]:
        yield f"{path.name}: has {size} bytes, the manifest says {line['bytes']}"
    elif sha256(path) != line["sha256"]:
        yield f"{path.name}: its bytes have changed since it was written (sha256)"
    found: dict[str, dict[str, list[int]]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if escapes_folder(member.name):
                    yield f"{path.name}: {member.name} would be unpacked outside of the folder"
                    continue
                key, _, extension = member.name.partition(".")
                if key not in found and key in split_of:
                    yield f"{path.name}: {key} is already in {split_of[key]}"
                elif extension in found.get(key, ()):
                    yield f"{path.name}: {member.name} occurs twice"
                split_of.setdefault(key, split)
                found.setdefault(key, {})[extension] = [member.offset_data, member.size]
                file = tar.extractfile(member)
                reason = open_error(extension, file.read()) if file else "is not a file"
                if reason:
                    yield f"{path.name}: {member.name} {reason}"
    except (tarfile.TarError, OSError) as error:
        yield f"{path.name}: is not a complete tar ({error})"
    if len(found) != line["samples"]:
        yield f"{path.name}: has {len(found)} samples, the manifest says {line['samples']}"
    try:
        index = json.loads(index_path(path).read_text())
    except (OSError, ValueError) as error:
        yield f"{index_path(path).name}: cannot be read ({error})"
        return
    if index != [[key, files] for key, files in found.items()]:
        yield f"{index_path(path).name}: does not match the tar"


def open_error(extension: str, content: bytes) -> str | None:
    """Why a file of this type cannot be opened; None if it can, or if the type is unknown."""
    opener = OPENERS.get(extension.rpartition(".")[2].lower())
    try:
        if opener is not None:
            opener(content)
    except Exception as error:  # each library raises its own
        return f"cannot be opened ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


def print_stats(folder: Path | str) -> None:
    """Prints a table with one row per split.

    Classes and hours are counted from `label` or `labels` and `seconds` in the json of the samples. They are left out for a
    remote folder, where this would fetch every shard.
    """
    manifest = read_manifest(folder)
    table = Table(
        title=f"{manifest['name']} in {folder}", caption=f"licence: {manifest['licence']}", title_justify="left"
    )
    for column in ("split", "samples", "shards", "MB", "classes", "hours", "unreadable", "too short"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, entry in manifest["splits"].items():
        classes, seconds = set(), 0.0
        if remote.url(folder) is None:
            reader = ShardReader(folder, entry["shards"])
            for number in track(range(len(reader.keys)), f"reading {split}", total=len(reader.keys), unit="samples"):
                metadata = json.loads(reader.read(number, only=("json",)).get("json", b"{}"))
                labels = metadata.get("labels", metadata.get("label", []))
                classes.update(labels if isinstance(labels, list) else [labels])
                seconds += metadata.get("seconds", 0.0)
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
    Console(width=110).print(table)
