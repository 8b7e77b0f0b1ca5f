"""COCO 2017 from your copy: a folder with its zip files, packed or unpacked."""

from __future__ import annotations

import argparse
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..core.errors import UserError, reason
from ..core.progress import track
from ..storage.index import escapes_folder
from ..storage.workers import disk_errors_explained
from .coco import Coco

# folder -> the zip file that contains it
PARTS = {
    "train2017": "train2017.zip",
    "val2017": "val2017.zip",
    "annotations": "annotations_trainval2017.zip",
}


def unpack(archive: Path, folder: str, out: Path) -> None:
    """Unpacks `folder` of a zip to out/folder, which is created when it is complete. Continues an interrupted attempt."""
    part = out / f"{folder}.part"
    try:
        with zipfile.ZipFile(archive) as content:
            members = [m for m in content.infolist() if m.filename.startswith(f"{folder}/") and not m.is_dir()]
            for member in track(members, f"unpacking {archive.name}", total=len(members), unit="files"):
                path = part / member.filename
                if escapes_folder(member.filename):
                    raise ValueError(f"{member.filename} would be unpacked outside of the folder")
                if path.is_file() and path.stat().st_size == member.file_size:
                    continue
                try:
                    content.extract(member, part)
                except Exception:
                    path.unlink(missing_ok=True)  # it may have the right size, but not the right bytes
                    raise
    except OSError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds for damaged bytes
        raise UserError(f"{archive} is damaged ({reason(error)}): download it again") from error
    if not members:
        raise UserError(f"{archive} has no folder {folder}: check that it is from COCO 2017")
    os.sync()  # the files, before the name that says that they are complete
    os.replace(part / folder, out / folder)


def find(source: Path, folder: str, archive: str) -> Callable[[Path], None]:
    """A function that makes out/folder: it links to the folder in the source or unpacks its zip."""
    if (source / folder).is_dir():
        return lambda out: (out / folder).symlink_to((source / folder).resolve(), target_is_directory=True)
    if (source / archive).is_file():
        return lambda out: unpack(source / archive, folder, out)
    raise UserError(f"{source} has neither {folder}/ nor {archive}: set --source to the folder with COCO 2017")


def add_options(parser: argparse.ArgumentParser) -> None:
    zips = ", ".join(PARTS.values())
    parser.add_argument("--source", type=Path, required=True, help=f"folder with {zips}, packed or unpacked")
    parser.add_argument("--out", type=Path, default=Path("data/coco"), help="folder to write to (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    """Unpacks or links the folders and counts their images."""
    missing = {folder: archive for folder, archive in PARTS.items() if not (options.out / folder).exists()}
    steps = [find(options.source, folder, archive) for folder, archive in missing.items()]
    options.out.mkdir(parents=True, exist_ok=True)
    with disk_errors_explained(options.out):
        for step in steps:
            step(options.out)
        for folder in PARTS:
            shutil.rmtree(options.out / f"{folder}.part", ignore_errors=True)
    return f"{options.out}: " + "; ".join(count(Coco(str(options.out)), name) for name in ("train2017", "val2017"))


def count(data: Coco, name: str) -> str:
    """Describes a split: images, missing images, objects, and images without objects."""
    instances = data.instances(name)
    files = set(os.listdir(data.data_dir / name))
    objects = [len(instances[number]["objects"]) for number in range(len(instances.files))]
    missing = sum(file not in files for file in instances.files)
    note = f" ({missing:,} of them MISSING)" if missing else ""
    return f"{name} {len(objects):,} images{note}, {sum(objects):,} objects, {objects.count(0):,} images without any"
