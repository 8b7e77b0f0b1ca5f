"""Fashion-MNIST (60,000 + 10,000 images of 28x28, 30 MB) from the Debian package, torchvision or a folder."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from ..core.errors import UserError
from ..storage import debian
from ..storage.files import written_whole
from .fashion_mnist import FASHION_FILES, find_fashion_files, read_idx

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("data/fashion_mnist"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--source", default="debian", help="debian (default), torchvision, or a folder with the files")


def prepare(options: argparse.Namespace) -> str:
    if find_fashion_files(options.out):
        return f"{options.out} already holds Fashion-MNIST"
    origin = fill(options.out, options.source)
    counts = {name: len(read_idx(images)) for name, (images, _) in find_fashion_files(options.out).items()}
    return f"{options.out}: Fashion-MNIST, {counts['train']:,} + {counts['test']:,} images, from {origin}"


def fill(out: Path, source: str) -> str:
    """Puts the four files into `out` and returns where they came from."""
    out.mkdir(parents=True, exist_ok=True)
    if source == "torchvision":
        from torchvision.datasets import FashionMNIST

        try:
            FashionMNIST(str(out), download=True)
        except (RuntimeError, OSError) as error:
            raise UserError(f"torchvision could not download Fashion-MNIST ({error}): try --source debian") from error
        return "torchvision's download"
    if source != "debian":
        copy_files(Path(source), out)
        return f"the folder {source}"
    with tempfile.TemporaryDirectory() as scratch:
        folder, origin = debian.find_or_unpack([PACKAGE], INSTALLED, Path(scratch))
        copy_files(folder, out)
    return origin


def copy_files(source: Path, out: Path) -> None:
    if not find_fashion_files(source):
        wanted = ", ".join(name for names in FASHION_FILES.values() for name in names)
        raise UserError(f"{source} lacks some of {wanted} (or their .gz): set --source to another folder")
    for paths in find_fashion_files(source).values():
        for path in paths:
            with written_whole(out / path.name) as part:
                shutil.copyfile(path, part)
