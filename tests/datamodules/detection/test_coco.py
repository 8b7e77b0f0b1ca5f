"""COCO folders: objects stay with their pixels, categories map back, faults are named."""

import json
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from datamodules import BadSampleError, UserError
from datamodules.detection import prepare_coco
from datamodules.detection.annotations import COCO_CATEGORIES
from datamodules.detection.coco import Coco
from datamodules.detection.targets import to_original
from tests.support.coco import COLOURS, SIDE, data_of, targets, write_coco


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_coco(tmp_path / "coco")


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_coco_has_80_classes_and_ids_with_gaps():
    data = Coco(side=32, bands=1)
    assert data.spec.num_classes == len(COCO_CATEGORIES) == 80
    assert (data.category_ids[0], data.category_ids[-1]) == (1, 90)
    assert (COCO_CATEGORIES[13], COCO_CATEGORIES[44], COCO_CATEGORIES[90]) == ("stop sign", "bottle", "toothbrush")


def test_labels_are_numbered_without_gaps_and_map_back(folder):
    data = data_of(folder)
    target = targets(data, "test")["val2017/0003.png"]
    assert data.spec.classes == ("cat", "dog", "tea pot")
    assert target["labels"].tolist() == [2, 0]
    assert [data.category_ids[label] for label in target["labels"]] == [90, 1]


def test_image_without_annotations_stays_in(folder):
    target = targets(data_of(folder), "test")["val2017/0002.png"]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, SIDE, SIDE)


def test_crowd_is_marked_and_its_runs_are_its_mask(folder):
    target = targets(data_of(folder), "test")["val2017/0003.png"]
    assert target["iscrowd"].tolist() == [True, False]
    expected = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    expected[0, :16], expected[1, 24:56, 8:24] = True, True
    assert torch.equal(target["masks"], expected)
    assert target["area"].tolist() == [1024, 512]


def test_evaluation_keeps_the_aspect_ratio_pads_and_masks_the_padding(folder):
    data = data_of(folder, side=128)
    batch = data.flatten(next(iter(data.loader("test"))))  # 64x32 and 48x64
    image = batch.inputs["image"]
    assert image.grid == data.spec.modalities["image"].grid == (128, 128)
    assert image.positions.shape == (128 * 128, data.spec.modalities["image"].position_channels)
    real = image.mask.view(2, 128, 128)
    assert real[0, :, :64].all()
    assert real[0].sum() == 128 * 64
    assert real[1, :96].all()
    assert real[1].sum() == 96 * 128
    assert image.values.view(2, 128, 128, 3)[0, :, 64:].abs().max() < 0.02


def test_boxes_of_evaluation_map_back_to_the_annotated_ones(folder):
    for side in (50, 64, 129):
        target = targets(data_of(folder, side=side), "test")["val2017/0001.png"]
        assert torch.allclose(to_original(target["boxes"], target), torch.tensor([[4.0, 6, 24, 36]]), atol=1e-4)
        assert target["size"].tolist() == [64, 32]
        assert target["image_id"] == 1


def test_loaders_and_devices_leave_annotations_alone(folder):
    data = data_of(folder, num_workers=1)
    original = data.split("test").load(0, torch.Generator())["target"]["annotations"]
    compact = next(iter(data.loader("test")))
    loaded = compact["target"][0]["annotations"]
    assert loaded.items == original.items
    assert data.transfer_batch_to_device(compact, torch.device("cpu"), 0)["target"][0]["annotations"] is loaded
    assert pin_memory([{"annotations": loaded}])[0]["annotations"] is loaded


def test_boxes_and_masks_move_with_the_pixels_under_jitter_crop_and_flip(folder):
    data = data_of(folder, scale_jitter=(0.4, 2.5))
    split = data.split("train")
    seen, sides = set(), set()
    for seed in range(40):
        sample = split.load(seed % 5, torch.Generator().manual_seed(seed))
        batch = data.flatten({name: value[None] for name, value in sample.items() if name != "target"} | {
            "target": [sample["target"]], "key": ["k"], "weight": torch.ones(1)
        })  # fmt: skip
        target = batch.target[0]
        pixels = sample["image"].int()
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
            colour = torch.tensor(COLOURS[data.category_ids[label]])
            inside = (pixels - colour).abs().sum(dim=-1) < 125  # as much object as background at the border
            inside[:, sample["extent"][1] :] = inside[sample["extent"][0] :] = False
            assert (inside != mask).sum() <= 2 * (mask.any(0).sum() + mask.any(1).sum()) + 8
            assert (inside & mask).sum() > 0.8 * mask.sum()
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (edges - box).abs().max() <= 1.5
            seen.add(int(label))
        flips = torch.argmax((pixels[..., 0] > 125).sum(0)) > torch.argmax((pixels[..., 2] > 125).sum(0))
        sides.add(bool(flips))
    assert seen == {0, 2}
    assert sides == {True, False}


def test_workers_change_nothing(folder):
    def flat(workers: int) -> list:
        loader = data_of(folder, num_workers=workers).loader("train", training=True)
        return [(b["key"], b["image"], b["extent"], [t["objects"] for t in b["target"]], [t["crops"] for t in b["target"]])
                for b in loader]  # fmt: skip

    alone = flat(0)
    for workers in (1, 3):
        for (keys, *tensors), (other_keys, *others) in zip(alone, flat(workers), strict=True):
            assert keys == other_keys
            for one, two in zip(tensors, others, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_validation_is_held_out_of_training_whatever_the_seed(folder):
    keys = {name: data_of(folder, seed=0).split(name).keys for name in ("train", "val", "test")}
    assert {name: len(k) for name, k in keys.items()} == {"train": 5, "val": 3, "test": 3}
    assert set(keys["train"]) | set(keys["val"]) == {f"train2017/{n:04d}.png" for n in range(1, 9)}
    assert data_of(folder, seed=7).split("val").keys == keys["val"]
    with pytest.raises(UserError, match="cannot hold out 8 of 8"):
        data_of(folder, held_out=8).split("train")


def test_boxes_without_area_or_outside_the_image_are_dropped(folder):
    def edit(content: dict) -> None:
        good = content["annotations"][0]
        boxes = [[5, 5, 0, 9], [5, 5, 9, 0], [5, 5, -3, 4], [40, 5, 9, 9], [float("nan"), 5, 9, 9]]
        content["annotations"] += [{**good, "id": 50 + n, "bbox": box} for n, box in enumerate(boxes)]

    change(folder / "annotations" / "instances_val2017.json", edit)
    target = targets(data_of(folder), "test")["val2017/0001.png"]
    assert target["boxes"].tolist() == [[4, 6, 24, 36]]


def test_object_without_segmentation_fills_its_box(folder):
    change(folder / "annotations" / "instances_val2017.json", lambda c: c["annotations"][0].pop("segmentation"))
    target = targets(data_of(folder), "test")["val2017/0001.png"]
    assert target["masks"].sum() == 20 * 30
    assert target["masks"][0, 6:36, 4:24].all()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["annotations"][0].update(category_id=2), r"unknown categories \[2\]"),
        (lambda c: c["categories"][1].update(name="wolf"), "category 3 is 'wolf', expected 'dog'"),
        (lambda c: c["annotations"][0].update(image_id=99), "has the unknown image 99"),
        (lambda c: c["images"].append(c["images"][0]), "image 3 is listed twice"),
        (lambda c: c["annotations"][0].pop("bbox"), "has no 'bbox'"),
        (lambda c: c["images"][0].pop("height"), "has no 'height'"),
        (lambda c: c.pop("images"), "has no 'images'"),
        (lambda c: c.update(annotations=3), "not a COCO annotation file"),
    ],
)
def test_annotation_file_that_cannot_be_is_refused_by_name(edit, says, folder):
    path = folder / "annotations" / "instances_val2017.json"
    change(path, edit)
    with pytest.raises(UserError, match=says) as error:
        data_of(folder).split("test")
    assert str(path) in str(error.value)


def test_broken_or_missing_annotation_file_names_the_file_and_the_command(folder):
    path = folder / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"instances_train2017.json is not JSON .*datamodules.prepare coco"):
        data_of(folder).setup("fit")
    path.unlink()
    with pytest.raises(UserError, match=r"instances_train2017.json is missing: run .*datamodules.prepare coco"):
        data_of(folder).setup("fit")
    with pytest.raises(UserError, match=r"train2017 is missing: run"):
        data_of(folder / "nowhere").setup("fit")


def test_missing_broken_or_exchanged_image_and_broken_runs_are_bad_samples(folder):
    (folder / "val2017" / "0001.png").unlink()
    path = folder / "val2017" / "0002.png"
    path.write_bytes(path.read_bytes()[:60])
    Image.new("RGB", (10, 12)).save(folder / "val2017" / "0003.png")
    change(
        folder / "annotations" / "instances_train2017.json",
        lambda c: [a["segmentation"]["counts"].append(7) for a in c["annotations"] if a["category_id"] == 90],
    )
    data = data_of(folder)
    for index, says in enumerate(["0001.png is missing", "0002.png cannot be decoded", "0003.png is 12x10, .* 64x64"]):
        with pytest.raises(BadSampleError, match=says):
            data.split("test").load(index, torch.Generator())
    with pytest.raises(BadSampleError, match=r"mask of annotation \d+ cannot be read: runs of 5407 pixels"):
        data.split("val").load(0, torch.Generator())


def test_skipped_bad_sample_has_no_weight(folder):
    (folder / "val2017" / "0001.png").unlink()
    assert list(targets(data_of(folder, on_bad_sample="skip"), "test")) == ["val2017/0002.png", "val2017/0003.png"]


def test_grey_and_transparent_images_become_rgb(folder):
    Image.new("L", (32, 64), 77).save(folder / "val2017" / "0001.png")
    Image.new("RGBA", (64, 48), (1, 2, 3, 4)).save(folder / "val2017" / "0002.png")
    compact = next(iter(data_of(folder).loader("test")))
    assert compact["image"].shape == (2, SIDE, SIDE, 3)
    assert compact["image"][0, 0, 0].tolist() == [77, 77, 77]


def test_fingerprint_changes_with_annotations_and_images(folder):
    first = data_of(folder).fingerprint()
    assert data_of(folder).fingerprint() == first
    (folder / "val2017" / "0001.png").unlink()
    second = data_of(folder).fingerprint()
    change(folder / "annotations" / "instances_val2017.json", lambda c: c["annotations"].pop())
    assert len({first, second, data_of(folder).fingerprint()}) == 3


# prepare coco


def test_coco_is_prepared_from_zips_and_from_folders_and_counted(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(prepare_coco, "Coco", lambda out: data_of(Path(out)))
    zips = tmp_path / "zips"
    zips.mkdir()
    for name, archive in prepare_coco.PARTS.items():
        with zipfile.ZipFile(zips / archive, "w") as content:
            for path in (folder / name).iterdir():
                content.write(path, f"{name}/{path.name}")
    lines = [prepare_coco.prepare(Namespace(source=s, out=tmp_path / f"out{n}")) for n, s in enumerate([zips, folder])]
    for line in lines:
        assert "train2017 8 images, 16 objects, 0 images without any" in line
        assert "val2017 3 images, 3 objects, 1 images without any" in line
    fingerprints = {data_of(place).fingerprint() for place in (folder, tmp_path / "out0", tmp_path / "out1")}
    assert len(fingerprints) == 1
    assert not list((tmp_path / "out0").glob("*.part"))
    (folder / "val2017" / "0001.png").unlink()
    assert "val2017 3 images (1 of them MISSING)" in prepare_coco.prepare(
        Namespace(source=folder, out=tmp_path / "out1")
    )


def test_broken_zip_and_incomplete_source_are_named(tmp_path, folder):
    (folder / "annotations").rename(folder / "elsewhere")
    with pytest.raises(UserError, match=r"neither annotations/ nor annotations_trainval2017.zip"):
        prepare_coco.prepare(Namespace(source=folder, out=tmp_path / "out"))
    (folder / "annotations_trainval2017.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"annotations_trainval2017.zip is damaged"):
        prepare_coco.prepare(Namespace(source=folder, out=tmp_path / "out"))
