"""Furniture from the Debian package sweethome3d-furniture (120 MB): point clouds sampled from 820 models."""

from __future__ import annotations

import argparse
import re
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from ..core.errors import UserError, decoding
from ..core.order import hashed_seed
from ..storage import debian
from ..storage.shards import finished, read_manifest, write_shards
from .meshes import cloud_to_bytes, read_obj, sample_surface

PACKAGE = "sweethome3d-furniture"
INSTALLED = Path("/usr/share/sweethome3d/furniture")
CATALOGUE = "PluginFurnitureCatalog.properties"
LICENCE = "CC0 (BlendSwap-CC-0) and CC BY 3.0 (the other catalogues); creator and licence of each model are in its json"


class Piece(NamedTuple):
    """One entry of a catalogue. Shards hash its repr, so its names are fixed."""

    catalogue: str
    model: str
    name: str
    room: str
    creator: str
    licence: str
    rotation: tuple[float, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("data/furniture"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--source", default="debian", help="debian (default), or a folder with .sh3f files")
    parser.add_argument(
        "--points",
        type=int,
        default=4096,
        help="points per cloud, of which training uses a random choice (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    made_with = {"points": options.points}
    if finished(options.out) and read_manifest(options.out)["made_with"] == made_with:
        return f"{options.out} already holds furniture"
    with tempfile.TemporaryDirectory() as scratch:
        folder, origin = Path(options.source), f"the folder {options.source}"
        if options.source == "debian":
            folder, origin = debian.find_or_unpack([PACKAGE], INSTALLED, Path(scratch))
        catalogues = sorted(folder.glob("*.sh3f"))
        if not catalogues:
            raise UserError(f"{folder} has no .sh3f catalogue: set --source to another folder")
        manifest = write_shards(
            options.out,
            "furniture",
            {"all": [piece for catalogue in catalogues for piece in read_catalogue(catalogue)]},
            partial(sample_piece, folder=folder, points=options.points),
            made_with=made_with,
            licence=LICENCE,
            samples_per_shard=100,
            workers=options.workers,
        )
    entry = manifest["splits"]["all"]
    failed = "".join(f"; {reason}" for reason in entry["reasons"]["unreadable"])
    return f"{options.out}: {entry['written']} clouds of {entry['expected']} models from {origin}{failed}"


def read_catalogue(path: Path) -> list[Piece]:
    """Reads the entries of one .sh3f file, a zip with a Java properties file of lines such as name#12=Desk lamp."""
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read(CATALOGUE).decode("latin-1").splitlines()
        entries: dict[str | None, dict[str, str]] = {}
        for line in lines:
            # one line of the Scopia catalogue has neither number nor value
            if found := re.match(r"(\w+)(?:#(\d+))?\s*=(.*)", line):
                entries.setdefault(found[2], {})[found[1]] = unescaped(found[3].strip())
        licence = entries.pop(None, {}).get("license", "not said")
        return [
            Piece(
                catalogue=path.name,
                model=entry["model"].lstrip("/"),
                name=entry["name"],
                room=entry["category"],
                creator=entry.get("creator", ""),
                licence=licence,
                rotation=tuple(map(float, entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())),
            )
            for entry in entries.values()
        ]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a furniture catalogue ({error}): set --source to another folder") from error


def unescaped(value: str) -> str:
    r"""Replaces escapes such as \u00e9."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), value)


def sample_piece(piece: Piece, folder: Path, points: int) -> dict:
    """One sample: points as npy, (points, 3) float32 with y up, and the catalogue's metadata; its key is the model path."""
    key = piece.model.removesuffix(".obj")
    with decoding(f"{piece.model} of {piece.catalogue}"):
        with zipfile.ZipFile(folder / piece.catalogue) as archive:
            vertices, faces = read_obj(archive.read(piece.model))
        # some models lie on their side; the catalogue has the rotation to put them upright
        vertices = vertices @ torch.tensor(piece.rotation, dtype=vertices.dtype).view(3, 3).T
        cloud = sample_surface(vertices, faces, points, hashed_seed("cloud", key))
    metadata = {field: getattr(piece, field) for field in ("name", "room", "catalogue", "creator", "licence")}
    return {"__key__": key, "npy": cloud_to_bytes(cloud), "json": metadata}
