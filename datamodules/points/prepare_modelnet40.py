"""ModelNet40 from a folder of CLASS/{train,test}/NAME.off: point clouds sampled from 12,311 meshes.

PLY, STL and OBJ files are read, too.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..core.checks import read_bytes
from ..core.errors import UserError, decoding
from ..core.order import hashed_seed
from ..storage.shards import write_shards
from .meshes import READERS, cloud_to_bytes, read_mesh, sample_surface
from .modelnet40 import MODELNET40_CLASSES

MESHES = {"train": 9843, "test": 2468}
LICENCE = "ModelNet40: for academic use; the meshes belong to their authors"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("data/modelnet40"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with airplane/train/*.off and so on")
    parser.add_argument(
        "--points",
        type=int,
        default=4096,
        help="points per cloud, of which training uses a random choice (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    splits = {split: find_meshes(options.source, split) for split in MESHES}
    if not all(splits.values()):
        raise UserError(
            f"{options.source} has no meshes in CLASS/train or in CLASS/test, such as airplane/train/*.off: set "
            "--source to the folder ModelNet40"
        )
    manifest = write_shards(
        options.out,
        "modelnet40",
        splits,
        partial(sample_mesh, source=options.source, points=options.points),
        made_with={"points": options.points},
        licence=LICENCE,
        workers=options.workers,
    )
    counts = [
        f"{entry['written']:,} {split} clouds of {entry['expected']:,} files ({MESHES[split]:,} in the full set)"
        for split, entry in manifest["splits"].items()
    ]
    return f"{options.out}: {', '.join(counts)}; manifest.json lists files that could not be read"


def find_meshes(source: Path, split: str) -> list[str]:
    """The meshes of a split, relative to the source, in the order of the classes. Raises UserError if two have one key."""
    paths = [path for name in MODELNET40_CLASSES for path in sorted((source / name / split).glob("*"))]
    meshes = [path.relative_to(source).as_posix() for path in paths if path.suffix.lower() in READERS]
    by_key: dict[str, str] = {}
    for mesh in meshes:
        if (other := by_key.setdefault(key_of(mesh), mesh)) != mesh:
            raise UserError(f"{source / other} and {mesh} would have one name in the shards: rename one of them")
    return meshes


def key_of(mesh: str) -> str:
    """CLASS/NAME. Shards have no dots in keys."""
    return f"{mesh.partition('/')[0]}/{Path(mesh).stem.replace('.', '_')}"


def sample_mesh(mesh: str, source: Path, points: int) -> dict:
    """One sample: key CLASS/NAME, points as npy (points, 3) float32."""
    key = key_of(mesh)
    content = read_bytes(source / mesh)
    with decoding(mesh):
        vertices, faces = read_mesh(mesh, content)
        cloud = sample_surface(vertices, faces, points, hashed_seed("cloud", key))
    return {"__key__": key, "npy": cloud_to_bytes(cloud), "json": {"file": mesh, "faces": len(faces)}}
