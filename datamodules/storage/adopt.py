"""Adopt tars that others wrote, such as webdataset and img2dataset: writes indices and a manifest for them.

The tars are read and never changed. Each PATTERN is a path or a URL (https://, s3://, hf://, whatever fsspec reads), with
lists in braces as in train-{00..09}.tar, or with * and ?. SPLIT=PATTERN puts its tars into a split of that name; the others
are in the split `all`. Then they have the order, resumption, digests and fingerprint of all other shards.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import tarfile
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from ..core.errors import UserError, reason
from ..core.progress import track
from . import remote
from .files import sha256, write_json, written_whole
from .index import escapes_folder, index_path, members
from .manifest import finished, joint_hash, read_manifest, write_manifest
from .workers import one_at_a_time

log = logging.getLogger(__name__)
Index = dict[str, dict[str, list[int]]]
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
DOTS = ("first", "last")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patterns", nargs="+", help="tars, or SPLIT=tars", metavar="PATTERN")
    parser.add_argument(
        "--to",
        dest="out",
        type=Path,
        help="folder to write to; by default that of the tars. A folder apart may be on another disk, or here while the tars "
        "are at a URL",
    )
    parser.add_argument(
        "--dot",
        choices=("auto", *DOTS),
        default="auto",
        help="the dot of a file's name before its extension: `first` as webdataset has it (a.seg.png is the seg.png of a) "
        "or `last` for keys with dots; auto chooses what gives samples with the same files (default: %(default)s)",
    )
    parser.add_argument("--licence", default="not said", help="licence of the data, for the manifest")


def prepare(options: argparse.Namespace) -> str:
    places: dict[str, list[str]] = {}
    for pattern in options.patterns:
        named = re.fullmatch(r"([\w-]+)=(.+)", pattern)
        split, pattern = named.groups() if named else ("all", pattern)
        places.setdefault(split, []).extend(expand(pattern))
    every = [where for found in places.values() for where in found]
    if repeated := next((where for number, where in enumerate(every) if where in every[:number]), None):
        raise UserError(f"{repeated} is named twice: name each tar once")
    folder = options.out or common_folder(every)
    refuse_other_data(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):
        manifest = adopt(folder, places, options.dot, options.licence)
        (folder / ".lock").unlink(missing_ok=True)
    return f"{folder}: " + "; ".join(said(split, entry) for split, entry in manifest["splits"].items())


def said(split: str, entry: dict) -> str:
    lost = f", {entry['unreadable']:,} unreadable ({entry['reasons']['unreadable'][0]})" if entry["unreadable"] else ""
    return f"{entry['written']:,} {split} samples in {len(entry['shards']):,} tars{lost}"


def expand(pattern: str) -> list[str]:
    """The tars of a pattern: local paths are absolute. Raises UserError if there are none."""
    found: list[str] = []
    for each in dict.fromkeys(braces(pattern)):
        address = remote.url(each)
        if address is not None:
            here = matching(address) if re.search(r"[*?\[]", address) else [address]
        else:
            here = [each] if Path(each).is_file() else sorted(glob(each, recursive=True))
            here = [str(Path(path).absolute()) for path in here]
        if not here:
            raise UserError(f"there is no {each}: check the pattern {pattern}")
        found += here
    return found


def braces(pattern: str) -> list[str]:
    """What lists in braces stand for: {a,b}, and {08..11} with leading zeros, also within each other."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    choices = found[1].split(",")
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", found[1]):
        choices = [f"{n:0{len(numbers[1])}d}" for n in range(int(numbers[1]), int(numbers[2]) + 1)]
    return [each for choice in choices for each in braces(pattern[: found.start()] + choice + pattern[found.end() :])]


def matching(address: str) -> list[str]:
    """The URLs that a URL with * and ? stands for."""

    def listed() -> list[str]:
        files, path = remote.file_system(address)
        return [files.unstrip_protocol(name) for name in sorted(files.glob(path))]

    return remote.retried(address, listed)


def common_folder(places: list[str]) -> Path:
    folders = {Path(where).parent for where in places if remote.url(where) is None}
    if len(folders) != 1 or any(remote.url(where) for where in places):
        raise UserError("the tars are in several folders, or at a URL: set --to to a folder for their indices")
    return folders.pop()


def refuse_other_data(folder: Path) -> None:
    if finished(folder) and "adopted" not in read_manifest(folder)["made_with"]:
        raise UserError(
            f"{folder} holds shards that are read as they are: name it as the data_dir, or set another --to"
        )


def adopt(folder: Path, places: dict[str, list[str]], dot: str, licence: str) -> dict:
    """Writes the indices and the manifest, and returns it."""
    count = sum(map(len, places.values()))
    read = iter(track((read_tar(w) for found in places.values() for w in found), "reading", total=count, unit="tars"))
    tars = {split: [(where, *next(read)) for where in found] for split, found in places.items()}
    names = [[name for _, _, _, files, _ in found for name, *_ in files] for found in tars.values()]
    dot = best_dot([name for split in names for name in split]) if dot == "auto" else dot
    indices = {where: make_index(where, files, dot) for found in tars.values() for where, _, _, files, _ in found}
    prefixed = repeats([index for index, _ in indices.values()])
    if prefixed:
        log.warning("the key %s is in several tars: all keys get the name of their tar in front", prefixed)
    entries: dict[str, dict] = {}
    used: set[str] = set()
    for split, found in tars.items():
        lines, lost = [], []
        for where, path, hash, _, problem in found:
            index, cut = indices[where]
            file = file_name(where, used)
            prefix = f"{Path(file).stem}/" if prefixed else ""
            lost += [f"{prefix}{reason_}" for reason_ in cut] + ([problem] if problem else [])
            line = {"file": file, "samples": len(index), "bytes": path.stat().st_size, "sha256": hash}
            write_json(index_path(folder / file), [[prefix + key, files] for key, files in index.items()], indent=None)
            line["index_sha256"] = sha256(index_path(folder / file))
            at = where if remote.url(where) else os.path.relpath(where, folder) if inside(where, folder) else where
            lines.append(line if at == file else line | {"at": at})
        for each in lost:
            log.warning("%s", each)
        written = sum(line["samples"] for line in lines)
        entries[split] = {"expected": written + len(lost), "written": written, "unreadable": len(lost), "too_short": 0}
        entries[split] |= {"reasons": {"unreadable": lost, "too_short": []}, "shards": lines}
    hashes = [line["sha256"] for entry in entries.values() for line in entry["shards"]]
    manifest = {"name": "adopted", "licence": licence, "made_with": {"adopted": {"dot": dot, "prefix": bool(prefixed)}}}
    manifest |= {"made_from": joint_hash(hashes), "fingerprint": joint_hash(hashes), "splits": entries}
    write_manifest(folder, manifest)
    return manifest


def inside(where: str, folder: Path) -> bool:
    return Path(where).is_relative_to(folder.absolute())


def read_tar(where: str) -> tuple[Path, str, list[tuple[str, list[int], bool]], str | None]:
    """Reads a tar once, fetched if it is at a URL.

    Returns:
        Its path, its SHA-256, the name and span of each file and whether it is whole, and why the tar itself is damaged (None
        if it is not).
    """
    try:
        path, hash = (Path(where), None) if remote.url(where) is None else fetched(where)
        with path.open("rb") as file:
            if kind := next(
                (name for magic, name in COMPRESSED.items() if file.read(2) == magic or file.seek(0)), None
            ):
                raise UserError(
                    f"{where} is compressed with {kind}, which allows no random access: decompress it first"
                )
        hash = hash or sha256(path)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}): check it") from error
    files: list[tuple[str, list[int], bool]] = []
    try:
        for member in members(path):
            if member.content is not None or member.size:  # folders and links have no size
                files.append((member.name, member.span, member.content is not None))
    except (tarfile.TarError, ValueError, OSError) as error:
        if not files:
            raise UserError(f"{where} is not a tar ({reason(error)}): leave it out") from error
        if not files[-1][2]:
            return path, hash, files, None  # its last file is told
        return path, hash, files, f"{where} is damaged after {files[-1][0]} ({reason(error)})"
    return path, hash, files, None


def fetched(where: str) -> tuple[Path, str]:
    """Copies a remote tar into the cache, where `remote.fetch` finds it, and returns its path and SHA-256."""
    folder = remote.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{hashlib.sha256(where.encode()).hexdigest()}.adopted"

    def copy() -> None:
        files, path = remote.file_system(where)
        with written_whole(aside) as part:
            files.get_file(path, str(part))
            size = files.size(path)
            if size is not None and part.stat().st_size != size:
                raise EOFError(f"it has {part.stat().st_size} bytes instead of {size}")

    remote.retried(where, copy)
    hash = sha256(aside)
    path = folder / f"{hash}.tar"
    aside.replace(path)
    return path, hash


def split_name(name: str, dot: str) -> tuple[str, str] | None:
    """The key and extension of a file in a tar; None for a name without a dot, and for hidden files and notes, which
    webdataset leaves out too."""
    folder, slash, file = re.sub(r"^(\./)+|^/+", "", name).rpartition("/")
    stem, found, extension = file.partition(".") if dot == "first" else file.rpartition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if found and stem and extension else None


def best_dot(names: list[str]) -> str:
    """The dot with which samples have most of the extensions that there are; the first, if they are equal."""

    def filled(dot: str) -> float:
        pairs = [pair for name in names if (pair := split_name(name, dot))]
        samples, extensions = {key for key, _ in pairs}, {extension for _, extension in pairs}
        # more extensions than samples are rather numbers
        return len(pairs) / (len(samples) * len(extensions)) if pairs and len(samples) >= len(extensions) else 0.0

    return max(DOTS, key=filled)


def make_index(where: str, files: Iterable[tuple[str, list[int], bool]], dot: str) -> tuple[Index, list[str]]:
    """The index of a tar whose members are in any order, and why samples are left out. Raises UserError for a file that is
    there twice."""
    index: Index = {}
    lost: dict[str, str] = {}
    for name, span, whole in files:
        pair = split_name(name, dot)
        if pair is None:
            continue
        key, extension = pair
        if extension in index.get(key, ()):
            raise UserError(
                f"{where} has {key}.{extension} twice: it would not be known which is meant; write the tar anew, or try --dot"
            )
        index.setdefault(key, {})[extension] = span
        if not whole or escapes_folder(key):
            lost[key] = f"{key} in {where}: {name} " + ("leads out of the folder" if whole else "is cut short")
    return {key: found for key, found in index.items() if key not in lost}, list(lost.values())


def repeats(indices: Iterable[Index]) -> str | None:
    """A key that is in several tars; None if there is none."""
    seen: set[str] = set()
    for index in indices:
        if both := seen & index.keys():
            return min(both)
        seen |= index.keys()
    return None


def file_name(where: str, used: set[str]) -> str:
    """The name of a shard in the manifest, which names its index: that of the tar without dots and other signs."""
    stem = re.sub(r"[^\w-]", "_", Path(where).name.removesuffix(".tar"), flags=re.ASCII)
    name = next(name for n in range(len(used) + 1) if (name := f"{stem}-{n}.tar" if n else f"{stem}.tar") not in used)
    used.add(name)
    return name
