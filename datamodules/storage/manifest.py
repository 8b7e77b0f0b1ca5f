"""The manifest of a folder of shards: its schema, its own hash, and the fingerprint of the data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError, reason
from . import remote
from .files import parse_json, sha256, write_json

MANIFEST = "manifest.json"
FORMAT = 2  # since 2, a manifest has the hashes of indices and of itself, and indices have checksums of files
MAX_REHASHED = 2**30  # bytes that `fingerprint` reads again, which takes seconds
TOP = {"name": str, "licence": str, "made_with": dict, "made_from": str, "fingerprint": str, "splits": dict}
OPTIONAL = {"coverage": dict}
SEALED = {"format": int, "sha256": str}
SPLIT = {"expected": int, "written": int, "unreadable": int, "too_short": int, "reasons": dict, "shards": list}
SHARD = {"file": str, "samples": int, "bytes": int, "sha256": str, "index_sha256": str}
PLACE = {"at": str}  # where an adopted shard lies: its path, from the folder if it is relative, or its URL
# these become names of files, here and in the cache
PATTERNS = {"file": r"[\w-]+\.tar", "sha256": r"[0-9a-f]{64}", "index_sha256": r"[0-9a-f]{64}"}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest with its format and its own hash."""
    content = json.loads(json.dumps({**manifest, "format": FORMAT}))  # as it will be read: keys are texts
    write_json(folder / MANIFEST, {**content, "sha256": own_hash(content)})


def own_hash(manifest: Mapping[str, Any]) -> str:
    """The hash of everything but the hash itself."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finished(folder: Path | str) -> bool:
    """Whether the folder has a manifest. A remote folder is assumed to have one, which `read_manifest` checks."""
    return remote.url(folder) is not None or (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path | str, how_to_make: str = "the command that made it", name: str | None = None) -> dict:
    """Reads the manifest of a finished folder, a path or any URL that fsspec supports.

    Raises UserError with the command `how_to_make` if there is no valid manifest, or if its data set is not `name`.
    """
    where = f"{folder}/{MANIFEST}"
    if url := remote.url(folder):
        content = remote.read_files(url, {MANIFEST: None})[MANIFEST]
    elif finished(folder):
        try:
            content = (Path(folder) / MANIFEST).read_bytes()
        except OSError as error:
            raise UserError(f"{where} cannot be read ({error.strerror}): check its permissions") from error
    else:
        raise UserError(f"{folder} has no {MANIFEST}: run `{how_to_make}`")
    try:
        manifest = check_manifest(parse_json(content))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged ({reason(error)}): delete {folder} and run `{how_to_make}`") from error
    if name not in (None, manifest["name"]):
        raise UserError(
            f"{folder} holds {manifest['name']} instead of {name}: set another --data.data_dir, or run `{how_to_make}` for "
            "another folder"
        )
    return manifest


def check_manifest(manifest: Any) -> dict:
    """Returns the manifest. Raises ValueError if it breaks the schema or its hash. Older formats lack some hashes."""
    sealed = isinstance(manifest, dict) and "format" in manifest
    if sealed and manifest["format"] != FORMAT:
        raise ValueError(f"its format {manifest['format']!r} is not {FORMAT}: update ByteBench")
    check_fields(manifest, TOP | (SEALED if sealed else {}), OPTIONAL, "it")
    for name, entry in manifest["splits"].items():
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"the name of the split {name!r} is invalid")
        check_fields(entry, SPLIT, {}, name)
        for number, shard in enumerate(entry["shards"]):
            needed = {field: kind for field, kind in SHARD.items() if sealed or field != "index_sha256"}
            check_fields(shard, needed, PLACE if sealed else {}, f"shard {number} of {name}")
    files = [shard["file"] for shard in listed_shards(manifest)]
    if len(set(files)) < len(files):
        raise ValueError("it lists a shard twice")
    seal = manifest["sha256"] if sealed else manifest["fingerprint"]
    if seal != (own_hash(manifest) if sealed else joint_hash([shard["sha256"] for shard in listed_shards(manifest)])):
        raise ValueError("it was changed after it was written")
    return manifest


def check_fields(content: Any, needed: Mapping[str, type], optional: Mapping[str, type], what: str) -> None:
    """Raises ValueError unless `content` is a dict with these fields, of these types, and no others."""
    if not isinstance(content, dict):
        raise ValueError(f"{what} is not a JSON object")
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"{what} has no {' and no '.join(missing)}")
    for name, value in content.items():
        kind = {**needed, **optional}.get(name)
        if kind is None:
            raise ValueError(f"{what} has the unknown field {name!r}")
        if type(value) is not kind or (kind is int and value < 0):
            raise ValueError(f"{what} has the invalid {name} {shortened(value)}")
        if name in PATTERNS and not re.fullmatch(PATTERNS[name], value, re.ASCII):
            raise ValueError(f"{what} has the invalid {'shard name' if name == 'file' else name} {shortened(value)}")


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def listed_shards(manifest: Mapping[str, Any]) -> list[dict]:
    """The lines of all shards of all splits."""
    return [shard for entry in manifest["splits"].values() for shard in entry["shards"]]


def shards_of(manifest: Mapping[str, Any], split: str) -> list[dict]:
    """The lines of the shards of one split. Raises UserError if there is no such split."""
    if split not in manifest["splits"]:
        raise UserError(f"the data set {manifest['name']} has no split {split}, but {', '.join(manifest['splits'])}")
    return manifest["splits"][split]["shards"]


def place(folder: Path | str, shard: Mapping[str, Any]) -> str:
    """Where a shard lies: a path or a URL. Raises UserError if a remote manifest leads out of its folder."""
    at, base = shard.get("at", shard["file"]), remote.url(folder)
    elsewhere = remote.url(at) is not None or at.startswith("/")
    if base is not None and (elsewhere or ".." in at.split("/")):
        raise UserError(f"the manifest of {base} names {at}, outside of its folder: adopt the shards on this machine")
    return at if elsewhere else f"{base or folder}/{at}"


def local_shard(folder: Path | str, shard: Mapping[str, Any]) -> Path:
    """The path of a shard, which is fetched if it lies at a URL."""
    where = place(folder, shard)
    return Path(where) if remote.url(where) is None else remote.fetch(where, shard["sha256"], shard["bytes"])


def joint_hash(hashes: Sequence[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def fingerprint(folder: Path | str, manifest: Mapping[str, Any]) -> str:
    """One hash of the bytes of all shards of all splits.

    Local shards of up to MAX_REHASHED bytes are read again. Otherwise it is the fingerprint in the manifest, which
    `python -m datamodules.prepare lint` verifies.
    """
    shards = listed_shards(manifest)
    if (
        any(remote.url(place(folder, shard)) for shard in shards)
        or sum(shard["bytes"] for shard in shards) > MAX_REHASHED
    ):
        return manifest["fingerprint"]
    try:
        return joint_hash([sha256(Path(place(folder, shard))) for shard in shards])
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): prepare {folder} again") from error
