"""ImageNet from a folder and from shards: labels, held-out pictures, views, odd and broken files, any number of workers."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from datamodules import UserError, prepare
from datamodules.core.errors import BadSampleError
from datamodules.images import image_folder, transforms
from datamodules.images.imagenet import ImageNet
from tests.support.imagenet import CLASSES, jpeg, picture, write_imagenet

SMALL = {"classes": 3, "side": 32, "bands": 4, "num_workers": 0, "batch_size": 6}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_imagenet(tmp_path_factory.mktemp("imagenet") / "folder")


@pytest.fixture(scope="module")
def sharded(root) -> Path:
    out = root.parent / "shards"
    assert prepare.main(["imagenet", "--source", str(root), "--out", str(out)]) == 0
    return out


def epoch(data: ImageNet, name: str, epoch: int = 0) -> dict[str, tuple[torch.Tensor, int]]:
    """Picture and label of every key that counts."""
    loader = data.loader(name, training=name == "train")
    loader.sampler.set_epoch(epoch)
    found = {}
    for batch in loader:
        rows = zip(batch["key"], batch["image"], batch["target"].tolist(), batch["weight"].tolist(), strict=True)
        found |= {key: (image, label) for key, image, label, weight in rows if weight}
    return found


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key][0], second[key][0]) and first[key][1] == second[key][1] for key in first)


def test_spec_is_known_before_data_are_touched(tmp_path):
    spec = ImageNet(str(tmp_path / "nowhere")).spec
    image = spec.modalities["image"]
    assert (image.elements, image.channels, image.position_channels, image.grid) == (50176, 3, 258, (224, 224))
    assert spec.num_classes == 1000


def test_labels_are_the_places_of_the_sorted_class_folders(root):
    data = ImageNet(str(root), augmentation="none", **SMALL)
    for name in ("train", "val", "test"):
        for image, label in epoch(data, name).values():
            assert image.float().mean((0, 1)).argmax() == label


def test_a_tenth_of_the_training_pictures_is_held_out_and_the_official_validation_is_the_test_split(root):
    data = ImageNet(str(root), **SMALL)
    train, val, test = (set(data.split(name).keys) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (54, 6, 12)
    assert not train & val
    assert all(key.startswith("train/n0") for key in train | val)
    assert all(key.startswith("val/") for key in test)


@pytest.mark.parametrize("flat", image_folder.LISTS)
def test_validation_pictures_without_folders_are_labelled_by_the_list(flat, root, tmp_path):
    flat_root = write_imagenet(tmp_path / "flat", flat)
    by_folder, by_list = (epoch(ImageNet(str(r), **SMALL), "test") for r in (root, flat_root))
    assert_equal(
        {Path(key).name: value for key, value in by_folder.items()}, {Path(k).name: v for k, v in by_list.items()}
    )


def test_folder_and_shards_give_the_same_samples_in_the_same_order(root, sharded):
    folder, shards = ImageNet(str(root), **SMALL), ImageNet(str(sharded), **SMALL)
    for name in ("train", "val", "test"):
        assert folder.split(name).keys == shards.split(name).keys
        assert_equal(epoch(folder, name), epoch(shards, name))


def test_shards_are_read_from_a_url(sharded, tmp_path, monkeypatch):
    monkeypatch.setenv("BYTEBENCH_CACHE", str(tmp_path))
    assert_equal(epoch(ImageNet(f"file://{sharded}", **SMALL), "test"), epoch(ImageNet(str(sharded), **SMALL), "test"))


def test_shards_can_be_scaled_down(root, tmp_path):
    prepare.main(["imagenet", "--source", str(root), "--out", str(tmp_path), "--side", "40"])
    files = ImageNet(str(tmp_path), **SMALL).split("test").files
    assert {tuple(transforms.decode_image(files.read(n)[0]).shape) for n in range(len(files.keys))} == {(40, 53, 3)}


@pytest.mark.parametrize("augmentation", ["inception", "randaugment"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_give_the_same_samples_and_augmentations(root, num_workers, augmentation):
    options = {**SMALL, "augmentation": augmentation}
    one = epoch(ImageNet(str(root), **options), "train", epoch=2)
    assert_equal(one, epoch(ImageNet(str(root), **{**options, "num_workers": num_workers}), "train", epoch=2))


def rank_epoch(rank: int, root: Path, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    data = ImageNet(str(root), **SMALL)
    torch.save({name: epoch(data, name) for name in ("train", "test")}, out / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_the_same_samples_and_augmentations_as_one(root, tmp_path):
    mp.start_processes(rank_epoch, (root, tmp_path), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in ("train", "test"):
        assert not first[name].keys() & second[name].keys()
        assert_equal(first[name] | second[name], epoch(ImageNet(str(root), **SMALL), name))


def test_augmentation_changes_with_the_epoch_and_evaluation_does_not(root):
    data = ImageNet(str(root), **SMALL)
    first, second = epoch(data, "train", 0), epoch(data, "train", 1)
    assert not any(torch.equal(first[key][0], second[key][0]) for key in first)
    assert_equal(epoch(data, "test", 0), epoch(data, "test", 1))


def broken(root: Path, content: bytes) -> str:
    """Breaks one test picture; its key."""
    path = root / "val" / CLASSES[1] / "ILSVRC2012_val_00000001.JPEG"
    path.write_bytes(content)
    return f"val/{CLASSES[1]}/{path.stem}"


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", jpeg(picture(1, 0))[:400], b"\xff\xd8\xff\xe0garbage"])
def test_a_broken_picture_is_raised_or_skipped_and_is_no_part_of_shards(content, tmp_path, caplog, capsys):
    root = write_imagenet(tmp_path / "broken")
    key = broken(root, content)
    with pytest.raises(BadSampleError, match=rf"{key} cannot be decoded"):
        epoch(ImageNet(str(root), **SMALL), "test")
    kept = epoch(ImageNet(str(root), **SMALL, on_bad_sample="skip"), "test")
    assert len(kept) == 11
    assert key not in kept
    prepare.main(["imagenet", "--source", str(root), "--out", str(tmp_path / "out")])
    assert "54 train + 6 val + 11 test images of 3 classes, 1 unreadable" in capsys.readouterr().out
    assert_equal(epoch(ImageNet(str(tmp_path / "out"), **SMALL), "test"), kept)


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_another_number_of_classes_is_refused_with_what_to_set(form, root, sharded):
    data = ImageNet(str({"folder": root, "shards": sharded}[form]), num_workers=0)
    with pytest.raises(UserError, match=r"has 3 classes, but --data\.classes is 1000: set --data\.classes 3"):
        data.setup("fit")


def test_a_list_of_classes_names_them_and_takes_no_others(root, sharded, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(f"{CLASSES[2]} great white shark\n{CLASSES[0]} tench\n")
    data = ImageNet(str(root), **{**SMALL, "classes": str(path)})
    assert data.spec.classes == (CLASSES[2], CLASSES[0])
    labels = {key.split("/")[1]: label for key, (_, label) in epoch(data, "test").items()}
    assert labels == {CLASSES[2]: 0, CLASSES[0]: 1}
    with pytest.raises(UserError, match="has 3 classes"):
        ImageNet(str(sharded), **{**SMALL, "classes": str(path)}).split("test")
    with pytest.raises(UserError, match=r"--data\.classes: .*nowhere\.txt does not exist"):
        ImageNet(str(root), classes=str(tmp_path / "nowhere.txt"))


def test_missing_imagenet_names_the_folder_and_the_command(tmp_path):
    with pytest.raises(
        UserError, match=rf"ImageNet is not in {tmp_path}: run `python -m datamodules\.prepare imagenet"
    ):
        ImageNet(str(tmp_path)).setup("fit")


def test_a_flat_validation_folder_without_a_list_says_which_is_needed(tmp_path):
    root = write_imagenet(tmp_path / "flat", "val.txt")
    (root / "val.txt").unlink()
    with pytest.raises(UserError, match=r"put a list of labels next to it, val\.txt or LOC_val_solution\.csv"):
        ImageNet(str(root), **SMALL).setup("fit")


def test_fingerprint_changes_with_one_byte(root, tmp_path):
    other = write_imagenet(tmp_path / "other")
    assert ImageNet(str(other), **SMALL).fingerprint() == ImageNet(str(root), **SMALL).fingerprint()
    path = other / "train" / CLASSES[0] / f"{CLASSES[0]}_3.JPEG"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert ImageNet(str(other), **SMALL).fingerprint() != ImageNet(str(root), **SMALL).fingerprint()
