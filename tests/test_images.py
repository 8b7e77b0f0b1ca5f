"""Digits and Fashion-MNIST: sizes, disjoint splits, and files that are missing or broken."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Digits, FashionMNIST, UserError
from datamodules.images import FASHION_FILES, load_digit_images, read_idx

TRAIN, HELD_OUT, TEST = 100, 5000, 20


def idx(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, gz: bool) -> Path:
    """The four files; the first two pixels of an image hold its row number."""
    folder.mkdir(parents=True)
    for split, count in (("train", TRAIN + HELD_OUT), ("test", TEST)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in zip(FASHION_FILES[split], (images, labels), strict=True):
            content = gzip.compress(idx(array), 1) if gz else idx(array)
            (folder / (name + ".gz" * gz)).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def fashion(tmp_path_factory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion") / "plain", gz=False)


def test_digits_have_the_sizes_and_shapes_that_the_spec_says():
    data = Digits()
    sizes = {}
    for name in ("train", "val", "test"):
        split = data.split(name)
        sizes[name] = len(split.keys)
        assert split.tensors["image"].shape == (len(split.keys), 8, 8)
        assert set(split.tensors["target"].tolist()) == set(range(10))
    assert sizes == {"train": 1197, "val": 300, "test": 300}
    assert data.spec.modalities["image"].grid == (8, 8)
    assert data.spec.num_classes == 10


def test_digits_splits_are_disjoint_and_whole():
    keys = [key for name in ("train", "val", "test") for key in Digits().split(name).keys]
    assert len(keys) == len(set(keys)) == 1797


def test_digit_splits_do_not_depend_on_the_seed():
    assert Digits(seed=0).split("test").keys == Digits(seed=9).split("test").keys


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = load_digit_images()
    assert torch.equal((images.double() * 16 / 255).round(), torch.from_numpy(load_digits().images))
    assert labels.tolist() == load_digits().target.tolist()


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("inside", [".", "FashionMNIST/raw"])
def test_fashion_is_found_plain_and_gzipped_in_the_folder_and_where_torchvision_puts_it(gz, inside, tmp_path, fashion):
    write_fashion(tmp_path / "data" / inside, gz)
    data = FashionMNIST(str(tmp_path / "data"))
    assert data.split("test").tensors["image"].shape == (TEST, 28, 28)
    assert data.fingerprint() == FashionMNIST(str(fashion)).fingerprint()


def test_fashion_holds_5000_training_images_out_and_tests_on_none_of_them(fashion):
    data = FashionMNIST(str(fashion))
    train, val, test = (data.split(name) for name in ("train", "val", "test"))
    assert (len(train.keys), len(val.keys), len(test.keys)) == (TRAIN, HELD_OUT, TEST)
    assert not set(train.keys) & set(val.keys)
    assert all(key.startswith("test/") for key in test.keys)
    assert all(key.startswith("train/") for key in [*train.keys, *val.keys])


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_fashion_keys_images_and_labels_stay_together(name, fashion):
    split = FashionMNIST(str(fashion)).split(name)
    rows = torch.tensor([int(key.split("/")[1]) for key in split.keys])
    pixels = split.tensors["image"].long()
    assert torch.equal(pixels[:, 0, 0] * 256 + pixels[:, 0, 1], rows)
    assert torch.equal(split.tensors["target"], rows % 10)


def test_fashion_fingerprint_changes_with_one_label(fashion, tmp_path):
    other = write_fashion(tmp_path / "other", gz=False)
    path = other / FASHION_FILES["test"][1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert FashionMNIST(str(other)).fingerprint() != FashionMNIST(str(fashion)).fingerprint()


def test_missing_fashion_names_the_folder_and_the_command(tmp_path):
    folder = tmp_path / "nowhere"
    with pytest.raises(UserError) as error:
        FashionMNIST(str(folder)).setup("fit")
    assert str(folder) in str(error.value)
    assert f"python -m datamodules.prepare fashion_mnist --out {folder}" in str(error.value)


def test_one_missing_file_of_four_is_missing_fashion(tmp_path):
    folder = write_fashion(tmp_path / "three", gz=False)
    (folder / FASHION_FILES["test"][1]).unlink()
    with pytest.raises(UserError, match="is not in"):
        FashionMNIST(str(folder)).split("train")


GOOD = idx(np.zeros((3, 4, 4), np.uint8))
PACKED = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut", GOOD[:-1]),
        ("too-long", GOOD + b"\x00"),
        ("header-cut", GOOD[:10]),
        ("magic-cut", GOOD[:3]),
        ("empty", b""),
        ("other", b"<html>404</html>"),
        ("cut.gz", PACKED[:-20]),
        ("no-gzip.gz", GOOD),
        ("garbled.gz", PACKED[:30] + bytes(b ^ 255 for b in PACKED[30:60]) + PACKED[60:]),
        ("empty.gz", b""),
    ],
)
def test_broken_file_is_refused_by_name(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_idx(path)
