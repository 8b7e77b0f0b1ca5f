"""Digits and Fashion-MNIST: sizes, disjoint splits, permutation, and files that are missing or broken."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import Digits, FashionMNIST, UserError
from datamodules.images.digits import load_digit_images
from datamodules.images.fashion_mnist import FASHION_FILES, read_idx
from tests.support.fashion_mnist import idx, write_fashion

TRAIN, HELD_OUT, TEST = 100, 5000, 60


@pytest.fixture(scope="module")
def fashion(tmp_path_factory) -> Path:
    return write_fashion(tmp_path_factory.mktemp("fashion") / "plain")


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
    other = write_fashion(tmp_path / "other")
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
    folder = write_fashion(tmp_path / "three")
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


def permuted_keys(data: Digits, training: bool = False) -> dict[str, torch.Tensor]:
    """The values of the first pictures of train or test, by key."""
    loader = data.loader("train" if training else "test", training)
    found = {}
    for compact in list(loader)[:2]:
        batch = data.flatten(compact)
        found |= dict(zip(batch.keys, batch.inputs["image"].values, strict=True))
    return found


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_permutation_per_example_is_the_same_for_a_key_whenever_it_is_tested():
    data = Digits(permutation="per_example", batch_size=32)
    first = permuted_keys(data)
    assert equal(first, permuted_keys(data))
    assert equal(first, permuted_keys(Digits(permutation="per_example", batch_size=32, num_workers=2)))
    plain = permuted_keys(Digits(batch_size=32))
    assert all(torch.equal(first[key].sort(0).values, plain[key].sort(0).values) for key in plain)
    assert not any(torch.equal(first[key], plain[key]) for key in plain)


def test_permutation_per_example_differs_from_example_to_example_and_epoch_to_epoch():
    data = Digits(permutation="per_example", batch_size=32)
    seeds = [compact["order_seed"] for compact in data.loader("train", training=True)]
    assert torch.cat(seeds).unique().numel() == 32 * (1197 // 32)
    loader = data.loader("train", training=True)
    loader.sampler.set_epoch(1)
    again = torch.cat([compact["order_seed"] for compact in loader])
    assert not torch.isin(again, torch.cat(seeds)).any()


def test_fixed_permutation_is_the_same_for_any_seed_of_the_order():
    first = permuted_keys(Digits(permutation="fixed", batch_size=32))
    assert equal(first, permuted_keys(Digits(permutation="fixed", batch_size=32, seed=9)))
    assert not equal(first, permuted_keys(Digits(permutation="fixed", permutation_seed=1, batch_size=32)))


def test_permuted_batches_ship_one_number_more_per_example():
    plain, permuted = (next(iter(Digits(permutation=p, batch_size=32).loader("test"))) for p in ("none", "per_example"))
    assert permuted.keys() - plain.keys() == {"order_seed"}
    assert permuted["order_seed"].shape == (32,)
    assert permuted["order_seed"].dtype == torch.int64


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_some_classes_are_those_pictures_alone_with_new_labels_in_the_order_named(name, fashion):
    for whole, some in (
        (Digits(), Digits(classes=[7, 2, 5])),
        (FashionMNIST(str(fashion)), FashionMNIST(str(fashion), classes=[7, 2, 5])),
    ):
        every, chosen = whole.split(name), some.split(name)
        old = dict(zip(every.keys, every.tensors["target"].tolist(), strict=True))
        assert [old[key] for key in chosen.keys] == [[7, 2, 5][label] for label in chosen.tensors["target"].tolist()]
        assert list(chosen.keys) == [key for key in every.keys if old[key] in (2, 5, 7)]
        place = {key: row for row, key in enumerate(every.keys)}
        rows = [place[key] for key in chosen.keys]
        assert torch.equal(chosen.tensors["image"], every.tensors["image"][rows])
        assert some.spec.classes == tuple(whole.spec.classes[number] for number in (7, 2, 5))


def test_some_classes_are_other_data_than_all_or_others():
    prints = [Digits(classes=classes).fingerprint() for classes in (None, [0, 1], [1, 0], [2, 3])]
    assert len(set(prints)) == 4
    assert Digits(classes=list(range(10))).describe() == Digits().describe()
    assert Digits(classes=[2, 3]).describe()["splits"]["test"]["samples"] < 300


@pytest.mark.parametrize("classes", [[], [3], [1, 1, 2], [0, 10], [-1, 2]])
def test_classes_that_are_no_choice_are_refused(classes):
    with pytest.raises(UserError, match=r"--data.classes .* numbers from 0 to 9"):
        Digits(classes=classes)
