"""The checkpoints of a run: how they are replaced, and checked when they are read.

last.ckpt is the newest, previous.ckpt the one before it, best.ckpt that of the best epoch. Beside each lies its SHA-256,
NAME.sha256, which `sha256sum -c` reads too. It also holds the digests of the files before: it is written first, so a kill
between the two leaves a checkpoint that is known. A checkpoint without one is of an older version and is taken as it
is, if the checksums inside of it hold.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path

from datamodules import UserError
from datamodules.core.checks import read_bytes

from .files import PART, remove_quietly, sha256_of, sync_folder, write_aside

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


def replace_checkpoints(folder: Path, content: memoryview, best: bool) -> None:
    """Makes a checkpoint the last one, and the last one the previous.

    The best one comes first: a run that is killed between the two trains this epoch again, and finds it the best again.

    Args:
        folder: of the checkpoints.
        content: the bytes of the checkpoint.
        best: whether it is the best one, too.

    Raises:
        OSError: the disk is full or fails; the checkpoints before are kept.
    """
    last, digest = folder / LAST, hashlib.sha256(content).hexdigest()
    aside = write_aside(last, content)
    try:
        if best:
            copy = folder / f"{BEST}{PART}"
            same_file(aside, copy)
            install(copy, folder / BEST, digest)
        if last.exists():
            digests = known_digests(last)
            install(last, folder / PREVIOUS, digests[0] if digests else None)
        install(aside, last, digest)
        sync_folder(folder)  # once: file systems with a journal keep the order of renames in a folder
    except OSError:
        remove_quietly(aside)
        raise


def install(source: Path, path: Path, digest: str | None) -> None:
    """Renames a checkpoint. Whichever lies at `path`, now or then, its digest lies beside it.

    Args:
        source: the checkpoint.
        path: its new name.
        digest: its own; None for one of an older version, which has none.
    """
    beside = digest_path(path)
    if digest is None:
        beside.unlink(missing_ok=True)
    else:
        before = [f"# before: {known}\n" for known in known_digests(path)[:2] if known != digest]
        os.replace(write_aside(beside, "".join([f"{digest}  {path.name}\n", *before])), beside)
    os.replace(source, path)


def digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def known_digests(path: Path) -> list[str]:
    """The digests that a checkpoint may have, the newest first; none for one of an older version."""
    try:
        lines = read_bytes(digest_path(path)).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.removeprefix("# before: ").split(" ")[0] for line in lines]


def check(path: Path) -> None:
    """Raises UserError where a checkpoint is missing or is not what was written."""
    if not path.is_file():
        raise UserError(f"{path} is missing: train the run first, or name another checkpoint")
    if digest_path(path).is_file():
        intact = sha256_of(path) in known_digests(path)
    else:
        intact = path.stat().st_size > 0 and not (zipfile.is_zipfile(path) and damaged_zip(path))
    if not intact:
        raise UserError(
            f"{path} cannot be read (it is damaged: its bytes are not those that were written): name another checkpoint"
        )


def damaged_zip(path: Path) -> bool:
    """Whether a checksum inside of an archive does not hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except Exception:  # of as many kinds as there are places to damage
        return True


def load_checkpoint(path: Path) -> dict:
    """A checkpoint's content; only tensors and plain values are loaded, never code.

    Raises:
        UserError: it is missing or damaged.
    """
    check(path)
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of as many kinds as there are places to damage
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): name another checkpoint") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} has no weights: name another checkpoint")
    return content


def newest_checkpoint(folder: Path) -> tuple[Path, dict] | None:
    """What a run resumes from, with its content: last.ckpt or, with a warning, the one before it if that is damaged.

    Raises:
        UserError: there are checkpoints, and none can be read.
    """
    damaged = None
    for path in (folder / LAST, folder / PREVIOUS):
        if path.is_file():
            try:
                return path, load_checkpoint(path)
            except UserError as error:
                damaged = error
                print(f"warning: {error}; trying the one before it", file=sys.stderr)
    if damaged is not None:
        raise UserError(
            f"no checkpoint in {folder} can be read: leave --resume out to train anew (the run is kept beside)"
        )
    return None


def same_file(source: Path, target: Path) -> None:
    """Gives a file a second name: a hard link where the file system has them, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.copyfile(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
