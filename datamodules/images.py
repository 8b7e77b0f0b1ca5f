"""Image data sets: digits (scikit-learn), Fashion-MNIST and ImageNet."""

import gzip
import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from datamodules import image_folder, pixels, shards
from datamodules.base import Split, SplitName
from datamodules.errors import BadSampleError, UserError
from datamodules.flatten import GridModality, Permutation
from datamodules.image_base import ImageDataModule, choose_classes, pictures_of_classes, with_classes
from datamodules.order import epoch_order

Augmentation = Literal["none", "inception", "randaugment"]
# of the red, green and blue of ImageNet's training pictures
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DIGITS = tuple("0123456789")
FASHION_CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FASHION_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@cache
def load_digit_images() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits: images (1797, 8, 8) uint8 from 0 to 255, labels (1797,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).reshape(-1, 8, 8) * (255 / 16)
    return pixels.round().to(torch.uint8), torch.from_numpy(labels).long()


def digit_split(name: SplitName) -> list[int]:
    """Row numbers of a split of `load_digit_images`: 1,197 train, 300 val, 300 test, drawn once for all runs."""
    order = epoch_order(1797, seed=0, epoch=0)
    return sorted({"train": order[600:], "val": order[300:600], "test": order[:300]}[name])


class Digits(ImageDataModule):
    """scikit-learn's handwritten digits, 8x8 pixels, 10 classes: 64 elements of one channel. Needs no files.

    bands: frequencies per axis of the Fourier features.
    classes: numbers of those that are kept, in the order of their new numbers; all if left out.
    permutation, permutation_seed: the order of the elements, see Flatten.
    mixup, cutmix: alphas of the mixing of training pictures, see Mixing; 0 for none.
    """

    def __init__(
        self,
        bands: int = 4,
        classes: Sequence[int] | None = None,
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        image = GridModality((8, 8), channels=1, bands=bands, mean=78.0, std=96.0)
        self.classes = choose_classes(DIGITS, classes)
        names = [DIGITS[number] for number in self.classes]
        self.of_images(image, names, permutation, permutation_seed, mixup, cutmix)

    def make_split(self, name: SplitName) -> Split:
        images, labels = load_digit_images()
        rows = digit_split(name)
        keys = [f"digits/{row:04d}" for row in rows]
        return pictures_of_classes(keys, images[rows], labels[rows], self.classes)

    def fingerprint(self) -> str:
        images, labels = load_digit_images()
        digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes())
        return with_classes(digest.hexdigest(), self.classes, DIGITS)


def read_idx(path: Path) -> Tensor:
    """An IDX file of unsigned bytes, gzipped or not, to a uint8 tensor of its shape."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is broken ({error}): delete it and prepare it again") from error
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * int.from_bytes(content[3:4]):
        raise UserError(f"{path} is not an IDX file of unsigned bytes: delete it and prepare it again")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    start = 4 + 4 * content[3]
    if len(content) - start != shape.prod(dtype=int):
        raise UserError(f"{path} is cut short ({len(content) - start} of {shape.prod()} bytes): prepare it again")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def find_fashion_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The four Fashion-MNIST files in a folder, or in the one that torchvision makes inside it; {} if any is missing."""
    for place in (folder, folder / "FashionMNIST" / "raw"):
        found = {}
        for split, (images_name, labels_name) in FASHION_FILES.items():
            images, labels = existing(place / images_name), existing(place / labels_name)
            if images and labels:
                found[split] = (images, labels)
        if len(found) == len(FASHION_FILES):
            return found
    return {}


def existing(path: Path) -> Path | None:
    """The file itself or its gzipped form, whichever is there."""
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


class FashionMNIST(ImageDataModule):
    """Fashion-MNIST, 28x28 pixels, 10 classes: 784 elements of one channel; 55,000 train, 5,000 held out of the training
    images for choosing (val), 10,000 test.

    data_dir: a folder with the four IDX files, gzipped or not, or with torchvision's download.
    bands: frequencies per axis of the Fourier features.
    classes: numbers of those that are kept, in the order of their new numbers; all if left out.
    permutation, permutation_seed: the order of the elements, see Flatten.
    mixup, cutmix: alphas of the mixing of training pictures, see Mixing; 0 for none.
    """

    def __init__(
        self,
        data_dir: str = "data/fashion_mnist",
        bands: int = 16,
        classes: Sequence[int] | None = None,
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.data_dir = Path(data_dir)
        image = GridModality((28, 28), channels=1, bands=bands, mean=72.9, std=90.0)
        self.classes = choose_classes(FASHION_CLASSES, classes)
        names = [FASHION_CLASSES[number] for number in self.classes]
        self.of_images(image, names, permutation, permutation_seed, mixup, cutmix)

    def files(self) -> dict[str, tuple[Path, Path]]:
        found = find_fashion_files(self.data_dir)
        if not found:
            raise UserError(
                f"Fashion-MNIST is not in {self.data_dir}: run `python -m datamodules.prepare fashion_mnist "
                f"--out {self.data_dir}`, or set --data.data_dir to a folder that has its four IDX files"
            )
        return found

    def make_split(self, name: SplitName) -> Split:
        images, labels = map(read_idx, self.files()["test" if name == "test" else "train"])
        rows = list(range(len(images)))
        if name != "test":
            order = epoch_order(len(images), seed=0, epoch=0)
            rows = sorted(order[5000:] if name == "train" else order[:5000])
        stem = "test" if name == "test" else "train"
        keys = [f"{stem}/{row:05d}" for row in rows]
        return pictures_of_classes(keys, images[rows], labels[rows], self.classes)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for paths in self.files().values():
            for path in paths:
                digest.update(read_idx(path).numpy().tobytes())  # of the content, gzipped or not
        return with_classes(digest.hexdigest(), self.classes, FASHION_CLASSES)


class ImageFiles(ABC):
    """The pictures of one split, as files somewhere. `keys` names them."""

    keys: Sequence[str]

    @abstractmethod
    def read(self, index: int) -> tuple[bytes, int]:
        """A picture file and its label."""


class FolderFiles(ImageFiles):
    def __init__(self, root: Path, pictures: Sequence[image_folder.Picture]) -> None:
        self.root, self.pictures = root, pictures
        self.keys = [picture.key for picture in pictures]

    def read(self, index: int) -> tuple[bytes, int]:
        picture = self.pictures[index]
        try:
            return (self.root / picture.path).read_bytes(), picture.label
        except OSError as error:
            raise BadSampleError(f"cannot be read: {error.strerror}") from error


class ShardFiles(ImageFiles):
    def __init__(self, reader: shards.ShardReader) -> None:
        self.reader, self.keys = reader, reader.keys

    def read(self, index: int) -> tuple[bytes, int]:
        files = self.reader.read(index)
        return files["jpg"], json.loads(files["json"])["label"]


class ImageSplit(Split):
    """Pictures decoded and cut to a view of (side, side, 3) uint8.

    augmentation: `none` is the evaluation crop; `inception` a random crop and flip; `randaugment` both and then RandAugment.
    """

    def __init__(self, files: ImageFiles, side: int, augmentation: Augmentation, layers: int, magnitude: int) -> None:
        self.files, self.keys = files, files.keys
        self.side, self.augmentation, self.layers, self.magnitude = side, augmentation, layers, magnitude

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        try:
            content, label = self.files.read(index)
            picture = pixels.decode_image(content)
        except BadSampleError as error:
            raise BadSampleError(f"{self.keys[index]} {error}") from error
        return {"image": self.view(picture, generator), "target": torch.tensor(label)}

    def view(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        if self.augmentation == "none":
            return pixels.evaluation_crop(picture, self.side)
        picture = pixels.random_flip(pixels.inception_crop(picture, self.side, generator), generator)
        if self.augmentation == "randaugment":
            picture = pixels.rand_augment(picture, self.layers, self.magnitude, generator)
        return picture


class ImageNet(ImageDataModule):
    """ImageNet, 224x224 pixels, 1,000 classes: 50,176 elements of three channels. The official validation pictures are the
    test split; 10,000 training pictures (a tenth of smaller sets) are held out for choosing (val).

    data_dir: a folder as `image_folder` describes it, or shards that `prepare imagenet` made of one, local or at a URL.
    classes: their number, or a text file with the folder name of one class per line, in the order of their labels.
    side: height and width of a picture.
    augmentation: of training pictures, see ImageSplit.
    randaugment_layers, randaugment_magnitude: number of operations and their strength, 0 to 30.
    mixup, cutmix: alphas of the mixing of training pictures, see Mixing; 0 for none.
    bands: frequencies per axis of the Fourier features, up to side / 2.
    permutation, permutation_seed: the order of the elements, see Flatten.
    """

    def __init__(
        self,
        data_dir: str = "data/imagenet",
        classes: int | str = 1000,
        side: int = 224,
        augmentation: Augmentation = "randaugment",
        randaugment_layers: int = 2,
        randaugment_magnitude: int = 9,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        bands: int = 64,
        permutation: Permutation = "none",
        permutation_seed: int = 0,
        batch_size: int = 64,
        num_workers: int = 4,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        self.data_dir, self.side, self.augmentation = data_dir, side, augmentation
        self.layers, self.magnitude = randaugment_layers, randaugment_magnitude
        self.listed_classes = None if isinstance(classes, int) else read_class_list(Path(classes))
        names = self.listed_classes or [str(number) for number in range(int(classes))]
        image = GridModality((side, side), 3, bands, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.of_images(image, names, permutation, permutation_seed, mixup, cutmix)
        self._listed: dict[str, list[image_folder.Picture]] = {}

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare imagenet --source FOLDER --out {self.data_dir}"

    def manifest(self) -> dict | None:
        """Of the shards; None where data_dir is a folder of pictures."""
        if not shards.finished(self.data_dir):
            if (Path(self.data_dir) / "train").is_dir():
                return None
            raise UserError(
                f"ImageNet is not in {self.data_dir}: run `{self.how_to_make}`, or set --data.data_dir to a folder that has "
                "train/CLASS/*.JPEG and val"
            )
        manifest = shards.read_manifest(self.data_dir, self.how_to_make)
        self.check_classes(manifest["made_with"]["classes"])
        return manifest

    def check_classes(self, found: Sequence[str]) -> None:
        if len(found) != self.spec.num_classes:
            raise UserError(
                f"{self.data_dir} has {len(found)} classes, --data.classes says {self.spec.num_classes}: "
                f"set --data.classes {len(found)}"
            )
        if self.listed_classes is not None and list(found) != self.listed_classes:
            raise UserError(
                f"{self.data_dir} has other classes than the list of --data.classes, or another order of them"
            )

    def pictures(self) -> dict[str, list[image_folder.Picture]]:
        """Those of the folder, listed once."""
        if not self._listed:
            root = Path(self.data_dir)
            classes = self.listed_classes or image_folder.class_names(root)
            self.check_classes(classes)
            self._listed = image_folder.list_splits(root, classes)
        return self._listed

    def make_split(self, name: SplitName) -> Split:
        if manifest := self.manifest():
            lines = manifest["splits"][name]["shards"]
            files: ImageFiles = ShardFiles(shards.ShardReader(self.data_dir, lines, self.how_to_make))
        else:
            files = FolderFiles(Path(self.data_dir), self.pictures()[name])
        augmentation = self.augmentation if name == "train" else "none"
        return ImageSplit(files, self.side, augmentation, self.layers, self.magnitude)

    def fingerprint(self) -> str:
        """Of a folder of more than `shards.READ_ANEW` bytes: of its pictures' names, labels and sizes."""
        if manifest := self.manifest():
            return shards.fingerprint(self.data_dir, manifest)
        listed = [picture for pictures in self.pictures().values() for picture in pictures]
        return image_folder.fingerprint(Path(self.data_dir), listed, shards.READ_ANEW)


def read_class_list(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(
            f"--data.classes: there is no file {path}; give a number or a text file with one class per line"
        )
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
