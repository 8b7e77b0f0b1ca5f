"""Where declared data come from: tables, folders of folders, and shards, all as rows with named columns."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import BadSampleError, UserError, reason
from ..storage import shards

log = logging.getLogger(__name__)
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
SPLIT_NAMES |= {"test": "test", "testing": "test", "eval": "test"}
IN_A_NAME = re.compile(rf"(?:^|[/_.-])({'|'.join(SPLIT_NAMES)})(?=[/_.-]|$)")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
METADATA = tuple(f"metadata{suffix}" for suffix in TABLES)
# of samples in shards and in folders, which have no table
FILE, CLASS, SPLIT = "file", "class", "split"


class Source(ABC):
    """Rows with named columns. `keys` has a name for each row."""

    keys: list[str]

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """The values of a column, such as the target."""

    @abstractmethod
    def read(self, row: int, column: str, in_files: bool) -> tuple[Any, str]:
        """A value, or the content of the file that it names if `in_files`; and a name that tells its format.

        Raises:
            BadSampleError: if there is no such file.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of all bytes."""


class TableSource(Source):
    """Rows in memory; files by their paths, relative to `root`.

    Args:
        where: the file or folder, for messages.
        root: the folder of the files.
        rows: the values of each row by their column.
    """

    def __init__(self, where: Path, root: Path, rows: list[dict[str, Any]]) -> None:
        self.where, self.root, self.rows = where, root, rows
        names = [str(row.get(FILE) or "") for row in rows]
        unique = all(names) and len(set(names)) == len(names)
        self.keys = names if unique else [f"{row.get(SPLIT, 'row')}/{n:07d}" for n, row in enumerate(rows)]

    def values(self, column: str) -> list[Any]:
        known = {name for row in self.rows[:1000] for name in row}
        if column not in known:
            raise UserError(f"{self.where} has no column {column!r}, but {', '.join(sorted(known))}")
        return [row.get(column) for row in self.rows]

    def read(self, row: int, column: str, in_files: bool) -> tuple[Any, str]:
        value, name = self.rows[row].get(column), f"{self.keys[row]}/{column}"
        if value is None:
            raise BadSampleError(f"has no {column}")
        if isinstance(value, dict) and value.keys() >= {"bytes", "path"}:  # as Hugging Face's datasets store files
            if value["bytes"] is not None:
                return value["bytes"], str(value["path"] or name)
            value = value["path"]
        if not (isinstance(value, str) and (in_files or column == FILE)):
            return value, name
        try:
            return (self.root / value).read_bytes(), value
        except OSError as error:
            raise BadSampleError(f"{value} cannot be read ({error.strerror})") from error

    def fingerprint(self) -> str:
        """Of the rows and of the bytes of the files, or of their sizes if these are more than MAX_REHASHED bytes."""
        digest = hashlib.sha256()
        paths = []
        for row in self.rows:
            digest.update(repr(sorted(row.items())).encode())
            paths += [self.root / value for value in row.values() if isinstance(value, str)]
        paths = [path for path in dict.fromkeys(paths) if is_file(path)]
        sizes = [path.stat().st_size for path in paths]
        for path, size in zip(paths, sizes, strict=True):
            digest.update(str(size).encode())
            if sum(sizes) <= shards.MAX_REHASHED:
                digest.update(bytes.fromhex(shards.sha256(path)))
        return digest.hexdigest()


def is_file(path: Path) -> bool:
    """Whether a text of a table is the path of a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a path, or with a zero
        return False


class ShardSource(Source):
    """Samples in shards. A column is an extension (`jpg`), several of which the first that is there is taken (`jpg;png`), or
    a field in the json (`json.label`)."""

    def __init__(self, folder: str) -> None:
        self.folder, self.manifest = folder, shards.read_manifest(folder, "python -m datamodules.prepare adopt")
        splits = self.manifest["splits"]
        self.readers = {split: shards.ShardReader(folder, entry["shards"]) for split, entry in splits.items()}
        self.places = [(split, n) for split, reader in self.readers.items() for n in range(len(reader.keys))]
        self.keys = [self.readers[split].keys[number] for split, number in self.places]
        if len(set(self.keys)) < len(self.keys):
            self.keys = [f"{split}/{self.readers[split].keys[number]}" for split, number in self.places]

    def values(self, column: str) -> list[Any]:
        if column == SPLIT:
            return [split for split, _ in self.places]
        found = []
        for row in range(len(self.keys)):
            value, _ = self.read(row, column, in_files=False)
            found.append(value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else value)
        return found

    def read(self, row: int, column: str, in_files: bool) -> tuple[Any, str]:
        split, number = self.places[row]
        extension, _, field = column.partition(".")
        if extension == "json" and field:
            value: Any = self.readers[split].read(number, only=("json",)).metadata()
            for name in field.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            if value is None:
                raise BadSampleError(f"{self.keys[row]}.json has no {field}")
            return value, f"{self.keys[row]}/{column}"
        wanted = column.split(";")
        sample = self.readers[split].read(number, only=wanted)
        extension = next((name for name in wanted if name in sample), wanted[0])
        return sample[extension], f"{self.keys[row]}.{extension}"

    def fingerprint(self) -> str:
        return shards.fingerprint(self.folder, self.manifest)


def open_source(source: str, suffixes: Collection[str]) -> Source:
    """Opens what a config names: shards (a folder or URL with a manifest), a table, a folder with tables or with metadata, or
    a folder of folders whose names are the classes.

    Args:
        source: path or URL.
        suffixes: of the files that a folder of folders is searched for.
    """
    path = Path(source)
    if "://" in source or (path / shards.MANIFEST).is_file():
        return ShardSource(source)
    if path.is_file():
        return TableSource(path, path.parent, list(read_table(path)))
    if not path.is_dir():
        raise UserError(f"{source} does not exist: set --data.source to a folder, a table or adopted shards")
    metadata = sorted(found for found in path.rglob("metadata.*") if found.name in METADATA)
    tables = sorted(p for folder in (path, path / "data") if folder.is_dir() for p in folder.iterdir())
    tables = metadata or [
        p for p in tables if p.suffix.lower() in TABLES and not p.name.startswith((".", "dataset_", "state"))
    ]
    if not tables:
        return TableSource(path, path, list(files_in_folders(path, suffixes)))
    rows = []
    for table in tables:
        place = table.relative_to(path).with_suffix("").as_posix()
        named = IN_A_NAME.search(place)
        for row in read_table(table):
            if table in metadata and isinstance(row.get("file_name"), str):
                row[FILE] = (table.parent / row.pop("file_name")).relative_to(path).as_posix()
            rows.append({SPLIT: SPLIT_NAMES[named[1]], **row} if named else row)
    return TableSource(path, path, rows)


def files_in_folders(root: Path, suffixes: Collection[str]) -> Iterator[dict[str, Any]]:
    """The files of CLASS/... or SPLIT/CLASS/..., in a fixed order."""
    others: Counter = Counter()
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if not path.is_file() or any(part.startswith(".") for part in parts) or len(parts) < 2:
            continue
        if path.suffix.lower() not in suffixes:
            others[path.suffix.lower() or "no suffix"] += 1
            continue
        split = SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 2 else None
        row = {FILE: path.relative_to(root).as_posix(), CLASS: parts[1 if split else 0]}
        yield {**row, SPLIT: split} if split else row
    if others:
        log.warning("%s: left out files of other kinds: %s", root, ", ".join(f"{n} {s}" for s, n in others.items()))


def read_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table. Raises UserError if it cannot be read."""
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".csv" | ".tsv":
                import pandas

                frame = pandas.read_csv(path, sep="\t" if suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
                yield from ({str(name): value for name, value in row.items()} for row in frame.to_dict("records"))
            case ".jsonl" | ".ndjson":
                lines = path.read_text(encoding="utf-8").splitlines()
                yield from as_rows([json.loads(line) for line in lines if line.strip()])
            case ".json":
                yield from as_rows(json.loads(path.read_text(encoding="utf-8")))
            case ".parquet":
                from pyarrow import parquet

                yield from parquet.read_table(path).to_pylist()
            case ".arrow":
                import pyarrow

                with pyarrow.memory_map(str(path)) as file:
                    yield from pyarrow.ipc.open_stream(file).read_all().to_pylist()
            case _:
                raise UserError(f"{path} is no table: use one of {', '.join(TABLES)}")
    except (UserError, ImportError):
        raise
    except Exception as error:  # each library raises its own
        raise UserError(f"{path} cannot be read ({reason(error)}): correct it") from error


def as_rows(content: Any) -> Sequence[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("it is not a list of objects")
    return content
