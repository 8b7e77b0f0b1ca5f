"""Put a data set where its datamodule looks for it: `python -m datamodules.prepare NAME --out DIR [--source ...]`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from datamodules import dialpad
from datamodules.errors import UserError
from datamodules.images import FASHION_FILES, find_fashion_files
from datamodules.shards import MANIFEST

DEBIAN_FASHION = "dataset-fashion-mnist"
INSTALLED_FASHION = Path("/usr/share/datasets/fashion-mnist")


def prepare_fashion_mnist(out: Path, source: str) -> str:
    """Fashion-MNIST's four files into `out`; returns where they came from.

    source: `debian` (the package's installed folder, else `apt-get download`, which needs no root), `torchvision` (its
    download), or a folder that has the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    if source == "torchvision":
        from torchvision.datasets import FashionMNIST

        try:
            FashionMNIST(str(out), download=True)
        except (RuntimeError, OSError) as error:
            raise UserError(f"torchvision could not download Fashion-MNIST ({error}): try --source debian") from error
        return "torchvision's download"
    if source != "debian":
        copy_fashion_files(Path(source), out)
        return f"the folder {source}"
    if find_fashion_files(INSTALLED_FASHION):
        copy_fashion_files(INSTALLED_FASHION, out)
        return f"Debian's package {DEBIAN_FASHION}, installed in {INSTALLED_FASHION}"
    with tempfile.TemporaryDirectory() as scratch:
        unpack_debian_package(DEBIAN_FASHION, Path(scratch))
        copy_fashion_files(Path(scratch) / INSTALLED_FASHION.relative_to("/"), out)
    return f"Debian's package {DEBIAN_FASHION}, downloaded by apt-get and unpacked"


def copy_fashion_files(source: Path, out: Path) -> None:
    if not find_fashion_files(source):
        wanted = ", ".join(name for names in FASHION_FILES.values() for name in names)
        raise UserError(f"{source} lacks some of {wanted} (or .gz of them): give --source another folder")
    for paths in find_fashion_files(source).values():
        for path in paths:
            aside = out / (path.name + ".part")
            shutil.copyfile(path, aside)
            aside.rename(out / path.name)


def unpack_debian_package(name: str, folder: Path) -> None:
    """Download a Debian package and unpack it under `folder`, without installing it."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UserError(f"there is no apt-get here to download {name}: give --source a folder, or --source torchvision")
    done = subprocess.run(["apt-get", "download", name], cwd=folder, capture_output=True, text=True, check=False)
    packages = list(folder.glob("*.deb"))
    if done.returncode or not packages:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise UserError(
            f"apt-get could not download {name} ({reason}): run `apt-get update` as root first and try again"
        )
    subprocess.run(["dpkg-deb", "-x", packages[0], folder], check=True)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m datamodules.prepare", description=__doc__, allow_abbrev=False)
    sets = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    fashion = sets.add_parser("fashion_mnist", help="60,000 + 10,000 images of 28x28, 30 MB", allow_abbrev=False)
    fashion.add_argument("--out", type=Path, default=Path("data/fashion_mnist"))
    fashion.add_argument("--source", default="debian", help="debian (default), torchvision, or a folder with the files")
    pad = sets.add_parser("dialpad", help="moving digits with telephone tones, composed here", allow_abbrev=False)
    pad.add_argument("--out", type=Path, default=Path("data/dialpad"))
    pad.add_argument("--clips", type=int, nargs=3, default=dialpad.CLIPS, metavar=("TRAIN", "VAL", "TEST"))
    pad.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(args)

    if options.name == "fashion_mnist":
        if find_fashion_files(options.out):
            print(f"{options.out} has Fashion-MNIST already")
        else:
            print(f"{options.out}: Fashion-MNIST from {prepare_fashion_mnist(options.out, options.source)}")
    elif (options.out / MANIFEST).is_file():
        print(f"{options.out} has dialpad already")
    else:
        dialpad.compose(options.out, options.clips, workers=options.workers)
        print(f"{options.out}: {sum(options.clips):,} clips composed from scikit-learn's digits")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
