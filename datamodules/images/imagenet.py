"""ImageNet, from a folder of images or from shards."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.checks import MANY, check_range, read_bytes
from ..core.datamodule import Split, SplitName
from ..core.errors import BadSampleError, UserError, decoding
from ..core.flatten import GridModality
from ..storage import shards
from . import image_folder, transforms
from .base import ImageDataModule

Augmentation = Literal["none", "inception", "randaugment"]
# per channel (red, green, blue) of the training images
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class ImageFiles(ABC):
    """The image files of one split. `keys` are their names."""

    keys: Sequence[str]

    @abstractmethod
    def read(self, index: int) -> tuple[bytes, int]:
        """Returns the bytes of an image file and its label."""


class FolderFiles(ImageFiles):
    def __init__(self, root: Path, images: Sequence[image_folder.Picture]) -> None:
        self.root, self.images = root, images
        self.keys = [image.key for image in images]

    def read(self, index: int) -> tuple[bytes, int]:
        image = self.images[index]
        try:
            return read_bytes(self.root / image.path), image.label
        except OSError as error:
            raise BadSampleError(f"{image.key} cannot be read: {error.strerror}") from error


class ShardFiles(ImageFiles):
    def __init__(self, reader: shards.ShardReader, classes: int) -> None:
        self.reader, self.keys, self.classes = reader, reader.keys, classes

    def read(self, index: int) -> tuple[bytes, int]:
        files = self.reader.read(index)
        return files["jpg"], files.label(self.classes)


class ImageSplit(Split):
    """Decodes images and crops them to (side, side, 3) uint8.

    Args:
        files: the images.
        side: height and width of the crop.
        augmentation: `none` for the evaluation crop, `inception` for a random crop and flip, `randaugment` for both
            followed by RandAugment.
        layers: operations of RandAugment.
        magnitude: strength of RandAugment, 0 to 30.
    """

    def __init__(self, files: ImageFiles, side: int, augmentation: Augmentation, layers: int, magnitude: int) -> None:
        self.files, self.keys = files, files.keys
        self.side, self.augmentation, self.layers, self.magnitude = side, augmentation, layers, magnitude

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        content, label = self.files.read(index)
        with decoding(self.keys[index]):
            image = transforms.decode_image(content)
        return {"image": self.crop(image, generator), "target": torch.tensor(label)}

    def crop(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if self.augmentation == "none":
            return transforms.evaluation_crop(image, self.side)
        image = transforms.random_flip(transforms.inception_crop(image, self.side, generator), generator)
        if self.augmentation == "randaugment":
            image = transforms.rand_augment(image, self.layers, self.magnitude, generator)
        return image


class ImageNet(ImageDataModule):
    """ImageNet, 224x224 pixels, 1,000 classes: 50,176 elements of three channels.

    The official validation images are the test split; 10,000 training images (a tenth of smaller data sets) are held out for
    model selection (val).

    Args:
        data_dir: a folder laid out as in `datamodules.images.image_folder`, or the shards that
            `python -m datamodules.prepare imagenet` makes from it, local or at a URL.
        classes: number of classes, or a text file with the folder name of one class per line, in the order of the labels.
        side: height and width of the images in pixels.
        augmentation: augmentation of training images: `none`; `inception`, a random crop and flip; or `randaugment`,
            both followed by RandAugment.
        randaugment_layers: number of operations of RandAugment.
        randaugment_magnitude: strength of the operations, 0 to 30.
        bands: frequencies per axis of the Fourier features, up to side / 2.
        num_workers: worker processes per rank; 0 loads in the training process.
        kwargs: see ImageDataModule.
    """

    def __init__(
        self,
        data_dir: str = "data/imagenet",
        classes: int | str = 1000,
        side: int = 224,
        augmentation: Augmentation = "randaugment",
        randaugment_layers: int = 2,
        randaugment_magnitude: int = 9,
        bands: int = 64,
        num_workers: int = 4,
        **kwargs: Any,
    ) -> None:
        check_range(0, 100, randaugment_layers=randaugment_layers)
        check_range(0, 30, randaugment_magnitude=randaugment_magnitude)
        if isinstance(classes, int):
            check_range(2, MANY, classes=classes)
        self.listed_classes = None if isinstance(classes, int) else read_class_list(Path(classes))
        names = self.listed_classes or [str(number) for number in range(int(classes))]
        image = GridModality((side, side), 3, bands, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        super().__init__(image, names, num_workers=num_workers, **kwargs)
        self.data_dir, self.side, self.augmentation = data_dir, side, augmentation
        self.layers, self.magnitude = randaugment_layers, randaugment_magnitude
        self._listed: dict[str, list[image_folder.Picture]] = {}

    @property
    def how_to_make(self) -> str:
        return f"python -m datamodules.prepare imagenet --source FOLDER --out {self.data_dir}"

    def manifest(self) -> dict | None:
        """The manifest of the shards; None if data_dir is a folder of images."""
        if not shards.finished(self.data_dir):
            if (Path(self.data_dir) / "train").is_dir():
                return None
            raise UserError(
                f"ImageNet is not in {self.data_dir}: run `{self.how_to_make}`, or set --data.data_dir to a folder with "
                "train/CLASS/*.JPEG and val"
            )
        manifest = shards.read_manifest(self.data_dir, self.how_to_make, "imagenet")
        self.check_classes(manifest["made_with"]["classes"])
        return manifest

    def check_classes(self, found: Sequence[str]) -> None:
        if len(found) != self.spec.num_classes:
            raise UserError(
                f"{self.data_dir} has {len(found)} classes, but --data.classes is {self.spec.num_classes}: "
                f"set --data.classes {len(found)}"
            )
        if self.listed_classes is not None and list(found) != self.listed_classes:
            raise UserError(
                f"{self.data_dir} and the list of --data.classes differ in their classes or the order of them: use the list "
                "that the data were prepared with"
            )

    def images(self) -> dict[str, list[image_folder.Picture]]:
        """The images of every split of the folder, listed once."""
        if not self._listed:
            root = Path(self.data_dir)
            classes = self.listed_classes or image_folder.class_names(root)
            self.check_classes(classes)
            self._listed = image_folder.list_splits(root, classes)
        return self._listed

    def make_split(self, name: SplitName) -> Split:
        if manifest := self.manifest():
            reader = shards.ShardReader(self.data_dir, shards.shards_of(manifest, name), self.how_to_make)
            files: ImageFiles = ShardFiles(reader, self.spec.num_classes)
        else:
            files = FolderFiles(Path(self.data_dir), self.images()[name])
        augmentation = self.augmentation if name == "train" else "none"
        return ImageSplit(files, self.side, augmentation, self.layers, self.magnitude)

    def fingerprint(self) -> str:
        """A hash of the data; for a folder larger than `shards.MAX_REHASHED` only of names, labels and sizes."""
        if manifest := self.manifest():
            return shards.fingerprint(self.data_dir, manifest)
        listed = [image for images in self.images().values() for image in images]
        return image_folder.fingerprint(Path(self.data_dir), listed, shards.MAX_REHASHED)


def read_class_list(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"--data.classes: {path} does not exist: give a number, or a text file with one class per line")
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
