"""COCO 2017 from your copy: a folder with its zip files, or with them unpacked."""

from __future__ import annotations

import argparse
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..core.errors import UserError
from ..core.progress import track
from ..storage.workers import disk_errors_explained
from .coco import Coco

# folder -> the zip that holds it
PARTS = {
    "train2017": "train2017.zip",
    "val2017": "val2017.zip",
    "annotations": "annotations_trainval2017.zip",
}


def unpack(archive: Path, folder: str, out: Path) -> None:
    """The files under `folder` in a zip to out/folder, which appears once it is whole. What an earlier try has unpacked is
    kept."""
    aside = out / f"{folder}.part"
    try:
        with zipfile.ZipFile(archive) as content:
            members = [m for m in content.infolist() if m.filename.startswith(f"{folder}/") and not m.is_dir()]
            for member in track(members, f"unpacking {archive.name}", total=len(members), unit="files"):
                path = aside / member.filename
                if not (path.is_file() and path.stat().st_size == member.file_size):
                    content.extract(member, aside)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive} is broken ({error}): download it again") from error
    if not members:
        raise UserError(f"{archive} has no folder {folder}: is it COCO 2017's?")
    os.replace(aside / folder, out / folder)
    shutil.rmtree(aside)


def find(source: Path, folder: str, archive: str) -> Callable[[Path], None]:
    """What puts out/folder there: a link to the folder in the source, or its zip unpacked."""
    if (source / folder).is_dir():
        return lambda out: (out / folder).symlink_to((source / folder).resolve(), target_is_directory=True)
    if (source / archive).is_file():
        return lambda out: unpack(source / archive, folder, out)
    raise UserError(f"{source} has neither {folder}/ nor {archive}: give --source the folder with COCO 2017")


def add_options(parser: argparse.ArgumentParser) -> None:
    zips = ", ".join(PARTS.values())
    parser.add_argument("--source", type=Path, required=True, help=f"folder with {zips}, or with them unpacked")
    parser.add_argument("--out", type=Path, default=Path("data/coco"))


def prepare(options: argparse.Namespace) -> str:
    """Unpack zips, link folders, and count what is there."""
    missing = {folder: archive for folder, archive in PARTS.items() if not (options.out / folder).exists()}
    steps = [find(options.source, folder, archive) for folder, archive in missing.items()]
    options.out.mkdir(parents=True, exist_ok=True)
    with disk_errors_explained(options.out):
        for step in steps:
            step(options.out)
    return f"{options.out}: " + "; ".join(count(Coco(str(options.out)), name) for name in ("train2017", "val2017"))


def count(data: Coco, name: str) -> str:
    """Images, those among them that are missing, objects, and images without any."""
    instances = data.instances(name)
    there = set(os.listdir(data.data_dir / name))
    objects = [len(instances[number]["objects"]) for number in range(len(instances.files))]
    absent = sum(file not in there for file in instances.files)
    lost = f" ({absent:,} of them MISSING)" if absent else ""
    return f"{name} {len(objects):,} images{lost}, {sum(objects):,} objects, {objects.count(0):,} images without any"
