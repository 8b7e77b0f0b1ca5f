"""Files of runs as one archive, which can be committed and sent, and is unpacked into finished runs again."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from datamodules import UserError

from .files import write_file


def pack(path: Path, members: Iterable[tuple[str, Path]]) -> None:
    """Writes files into a .tar.xz, in the place of an older one. The same files give the same bytes: owners and times are
    left out. All are one stream, as the seeds of a variant share their samples and targets.

    Args:
        path: the archive.
        members: names in the archive, and the files.
    """
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as archive:
        for name, file in members:
            member = tarfile.TarInfo(name)
            member.size = file.stat().st_size
            with file.open("rb") as opened:
                archive.addfile(member, opened)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getbuffer())


def unpack(path: Path, folder: Path) -> int:
    """Writes the files of an archive that a folder lacks, in the archive's order. What the folder has is left as it is, and
    so are runs that were begun here: they have checkpoints.

    Returns:
        How many were written.

    Raises:
        UserError: it is no archive of files, or one of them would lie outside of the folder.
    """
    written = 0
    try:
        with tarfile.open(path, "r:xz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.is_absolute() or ".." in name.parts:
                    raise UserError(f"{path}: {member.name!r} is no file inside of it: leave this archive out")
                content, target = archive.extractfile(member), folder / name
                if content is None or target.exists() or (target.parent / "checkpoints").is_dir():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, content.read())
                written += 1
    except (tarfile.TarError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or leave it out") from error
    return written
