"""Image data sets: digits (scikit-learn), Fashion-MNIST and ImageNet."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..core.datamodule import Split, SplitName
from ..core.errors import BadSampleError, UserError
from ..core.flatten import GridModality, Permutation
from ..storage import shards
from . import image_folder, transforms
from .base import ImageDataModule

Augmentation = Literal["none", "inception", "randaugment"]
# of the red, green and blue of ImageNet's training pictures
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


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
            picture = transforms.decode_image(content)
        except BadSampleError as error:
            raise BadSampleError(f"{self.keys[index]} {error}") from error
        return {"image": self.view(picture, generator), "target": torch.tensor(label)}

    def view(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        if self.augmentation == "none":
            return transforms.evaluation_crop(picture, self.side)
        picture = transforms.random_flip(transforms.inception_crop(picture, self.side, generator), generator)
        if self.augmentation == "randaugment":
            picture = transforms.rand_augment(picture, self.layers, self.magnitude, generator)
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
