"""Look at prepared shards: `findings` checks tars, indices and manifest against each other, `print_stats` counts."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image
from rich.console import Console
from rich.table import Table

from ..core.errors import UserError
from ..core.progress import track
from . import remote
from .shards import ShardReader, index_path, joint_hash, leads_elsewhere, read_manifest, sha256

HOW = "the command that made it"
OPENERS: dict[str, Callable[[bytes], object]] = {
    "json": json.loads,
    "txt": bytes.decode,
    "npy": lambda content: np.load(io.BytesIO(content)),
    "npz": lambda content: np.load(io.BytesIO(content)),
    **dict.fromkeys(("jpg", "jpeg", "png", "webp"), lambda content: Image.open(io.BytesIO(content))),
    **dict.fromkeys(("wav", "flac", "ogg", "mp3"), lambda content: soundfile.info(io.BytesIO(content))),
    **dict.fromkeys(("mp4", "mkv", "webm", "m4a"), lambda content: av.open(io.BytesIO(content)).close()),
}


def findings(folder: Path) -> Iterator[str]:
    """What is wrong with a folder of shards, one line each. Reads every byte; media are opened, not decoded."""
    if remote.url(folder) is not None:
        raise UserError(f"{folder} is remote: lint reads every byte, so copy it and give it the copy")
    manifest = read_manifest(folder, HOW)
    split_of: dict[str, str] = {}
    for split, entry in manifest["splits"].items():
        lines = entry["shards"]
        accounted = entry["written"] + entry["unreadable"] + entry["too_short"]
        if accounted != entry["expected"]:
            yield f"manifest: {entry['expected']} samples of {split} were expected, {accounted} are accounted for"
        if (held := sum(line["samples"] for line in lines)) != entry["written"]:
            yield f"manifest: {entry['written']} samples of {split} were written, its shards hold {held}"
        for line in track(lines, f"checking {split}", total=len(lines), unit="shards"):
            yield from shard_findings(folder / line["file"], line, split, split_of)
    listed = [line for entry in manifest["splits"].values() for line in entry["shards"]]
    if joint_hash([line["sha256"] for line in listed]) != manifest["fingerprint"]:
        yield "manifest: the fingerprint is not that of its shards"
    names = {line["file"] for line in listed}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".part" or (path.suffix == ".tar" and path.name not in names):
            yield f"{path.name}: is no part of the data set"


def shard_findings(path: Path, line: dict, split: str, split_of: dict[str, str]) -> Iterator[str]:
    """What is wrong with one tar, its index and its line of the manifest. split_of: the split of every key seen so far."""
    if not path.is_file():
        yield f"{path.name}: is missing"
        return
    if (size := path.stat().st_size) != line["bytes"]:
        yield f"{path.name}: has {size} bytes, the manifest says {line['bytes']}"
    elif sha256(path) != line["sha256"]:
        yield f"{path.name}: its bytes are not those that were written (sha256)"
    found: dict[str, dict[str, list[int]]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if leads_elsewhere(member.name):
                    yield f"{path.name}: {member.name} leads out of the folder that it is unpacked in"
                    continue
                key, _, extension = member.name.partition(".")
                if key not in found and key in split_of:
                    yield f"{path.name}: {key} is in {split_of[key]} already"
                elif extension in found.get(key, ()):
                    yield f"{path.name}: {member.name} is there twice"
                split_of.setdefault(key, split)
                found.setdefault(key, {})[extension] = [member.offset_data, member.size]
                file = tar.extractfile(member)
                reason = objection(extension, file.read()) if file else "is no file"
                if reason:
                    yield f"{path.name}: {member.name} {reason}"
    except (tarfile.TarError, OSError) as error:
        yield f"{path.name}: is no whole tar ({error})"
    if len(found) != line["samples"]:
        yield f"{path.name}: has {len(found)} samples, the manifest says {line['samples']}"
    try:
        index = json.loads(index_path(path).read_text())
    except (OSError, ValueError) as error:
        yield f"{index_path(path).name}: cannot be read ({error})"
        return
    if index != [[key, files] for key, files in found.items()]:
        yield f"{index_path(path).name}: does not fit the tar"


def objection(extension: str, content: bytes) -> str | None:
    """Why a file of this kind cannot be opened; None if it can, or if nothing is known of its kind."""
    opener = OPENERS.get(extension.rpartition(".")[2].lower())
    try:
        if opener is not None:
            opener(content)
    except Exception as error:  # each library raises its own
        return f"cannot be opened ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


def print_stats(folder: Path | str) -> None:
    """A table with a row per split. Classes and hours are those that the samples' json names as `label` or `labels` and
    `seconds`; of a remote folder they are left out, since every shard would be fetched."""
    manifest = read_manifest(folder, HOW)
    table = Table(
        title=f"{manifest['name']} in {folder}", caption=f"licence: {manifest['licence']}", title_justify="left"
    )
    for column in ("split", "samples", "shards", "MB", "classes", "hours", "unreadable", "too short"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, entry in manifest["splits"].items():
        classes, seconds = set(), 0.0
        if remote.url(folder) is None:
            reader = ShardReader(folder, entry["shards"], HOW)
            for number in track(range(len(reader.keys)), f"reading {split}", total=len(reader.keys), unit="samples"):
                about = json.loads(reader.read(number, only=("json",)).get("json", b"{}"))
                labels = about.get("labels", about.get("label", []))
                classes.update(labels if isinstance(labels, list) else [labels])
                seconds += about.get("seconds", 0.0)
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
