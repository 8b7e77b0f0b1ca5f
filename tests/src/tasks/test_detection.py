"""Detection: it learns scenes, knows the extents of pictures, keeps what it found; padding does not count."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

import src.evaluate as evaluate
import src.fit as fit
from datamodules import Composed, DataSpec, Digits, UserError
from src.backbones import LambdaResNet, Perceiver, ResNet, ViT
from src.metrics.detection import KINDS, STATISTICS
from src.report.records import Record
from src.runs.folder import Run
from src.tasks import Classification, Detection
from src.tasks.detection import confident, in_original, to_learn
from tests.support import ROOT
from tests.support.coco import data_of, perfect, targets, write_coco

CONFIG = str(ROOT / "configs" / "composed_resnet.yaml")
LEARNT = ("boxes", "labels", "masks", "iscrowd")
TINY = partial(ResNet, name="resnet10t")
SMALL = {"anchor_sizes": (8, 16, 32, 64, 128), "channels": 16, "box_features": 32, "proposals": 100, "regions": 16}


def detector(spec: DataSpec, backbone=TINY, **options) -> Detection:
    return Detection(spec, backbone, **{**SMALL, **options})


@pytest.fixture
def coco(tmp_path) -> Path:
    """A COCO folder with three test images of different sizes; the last has an object and a crowd."""
    return write_coco(tmp_path / "coco")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Composed:
    folder = tmp_path_factory.mktemp("composed")
    data = Composed(str(folder), scenes=(8, 2, 5), side=64, bands=1, batch_size=8)
    data.prepare_data()
    return data


@pytest.mark.parametrize("backbone", [TINY, partial(LambdaResNet, depth=26, scope=3)])
def test_losses_fall_on_composed_scenes(scenes, backbone):
    batch = next(scenes.flatten(compact) for compact in scenes.loader("train"))
    batch.target[0] = {name: batch.target[0][name][:0] for name in LEARNT}  # a scene without objects
    model = detector(scenes.spec, backbone)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    totals = []
    for _ in range(12):
        extents = model.extents(batch.inputs)
        _, losses = model.detect(model(batch.inputs), extents, [to_learn(target) for target in batch.target])
        assert set(losses) == {
            "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"
        }  # fmt: skip
        totals.append(torch.stack(list(losses.values())).sum())
        optimizer.zero_grad()
        totals[-1].backward()
        optimizer.step()
    assert torch.stack(totals).isfinite().all()
    assert totals[-1] < 0.7 * totals[0]


@pytest.mark.parametrize("side", [64, 128])
def test_boxes_and_masks_come_back_to_the_original(side, coco):
    for target in targets(data_of(coco, side=side)).values():
        objects, wanted = to_learn(target), perfect(target)
        count = len(objects["boxes"])
        filled = {**objects, "scores": torch.ones(count), "masks": torch.ones(count, 1, 28, 28)}
        found = in_original(filled, target)
        assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-4)
        assert found["masks"].shape == wanted["masks"].shape
        different = (found["masks"] != wanted["masks"]).sum(dim=(1, 2))
        assert (different <= 0.3 * wanted["masks"].sum(dim=(1, 2))).all()


def test_a_mask_of_50_columns_covers_50_where_its_box_sticks_out_of_the_picture():
    target = {"size": torch.tensor([140, 75]), "scale": torch.tensor([1.0, 1.0])}
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., 2:12] = 1  # ten cells of five pixels
    box = torch.tensor([[0.0, 0, 140, 140]])
    found = in_original({"boxes": box, "labels": torch.ones(1), "scores": torch.ones(1), "masks": mask}, target)
    assert found["boxes"].tolist() == [[0, 0, 75, 140]]
    assert found["masks"].any(dim=1).sum() == 50


def test_masks_that_are_drawn_end_with_the_picture():
    found = {"boxes": torch.tensor([[0.0, 0, 31.9, 64]]), "labels": torch.ones(1), "scores": torch.ones(1)}
    drawn = confident({**found, "masks": torch.ones(1, 1, 28, 28)}, (64, 32), (64, 64))["masks"]
    assert drawn.shape == (1, 64, 64)
    assert drawn[..., :31].float().mean() > 0.9
    assert not drawn[..., 32:].any()


def test_nothing_is_found_outside_of_pictures_that_are_not_square(coco):
    data = data_of(coco)
    torch.manual_seed(0)
    model = detector(data.spec).eval()
    model.detector.roi_heads.score_thresh = 0.0  # untrained: everything that is proposed, padding included
    in_padding = 0
    for compact in data.loader("test"):
        batch = data.flatten(compact)
        with torch.no_grad():
            features = model(batch.inputs)
            found, _ = model.detect(features, model.extents(batch.inputs))
            beyond, _ = model.detect(features, [model.side] * len(found))
        for each, filled, (rows, columns) in zip(found, beyond, compact["extent"].tolist(), strict=True):
            assert len(each["boxes"])
            assert (each["boxes"] <= torch.tensor([columns, rows, columns, rows])).all()
            in_padding += int((filled["boxes"] > torch.tensor([columns, rows, columns, rows])).any())
    assert in_padding  # where the network alone would find objects


def test_heads_see_the_same_of_a_region_whatever_the_extent_of_the_first_picture(coco):
    spec = data_of(coco).spec
    torch.manual_seed(0)
    features = {str(level): torch.randn(1, 16, 16 >> level, 16 >> level) for level in range(4)}
    boxes = [torch.tensor([[2.0, 3, 20, 30]])]
    cut = [
        detector(spec).detector.roi_heads.box_roi_pool(features, boxes, [extent])
        for extent in ((64, 64), (40, 64), (20, 9))
    ]
    assert torch.equal(cut[0], cut[1])
    assert torch.equal(cut[0], cut[2])


def test_padding_is_not_counted(coco):
    data = data_of(coco)  # three test images in batches of two
    model = detector(data.spec).eval()
    for compact in data.loader("test"):
        with torch.no_grad():
            model.evaluate(data.flatten(compact), "test", model.test_metrics)
    assert model.test_metrics.compute()["samples"] == 3


def test_padding_is_not_trained_on(scenes):
    batch = next(scenes.flatten(compact) for compact in scenes.loader("train"))
    model = detector(scenes.spec)
    place = next(place for place, target in enumerate(batch.target) if len(target["boxes"]) > 1)

    def loss() -> float:
        torch.manual_seed(0)  # of the regions that are drawn
        return model.training_step(batch, 0).item()

    all_real = loss()
    batch.weight[place] = 0
    one_less = loss()
    batch.target[place] = {name: value[:1] for name, value in batch.target[place].items() if name in LEARNT}
    assert loss() == one_less != all_real
    batch.weight[place] = 1
    assert loss() not in (one_less, all_real)


def test_operations_are_those_of_backbone_pyramid_and_heads(scenes):
    narrow, wide = (detector(scenes.spec, box_features=width).flops_per_example for width in (32, 64))
    fc1, fc2, predictor = 16 * 7 * 7 * 32, 64 * 64 - 32 * 32, 32 * 11 * 5
    assert wide - narrow == 2 * 50 * (fc1 + fc2 + predictor)


def test_what_does_not_fit_is_refused_in_one_line(scenes):
    spec = scenes.spec
    with pytest.raises(UserError, match="Perceiver has no feature maps"):
        detector(spec, partial(Perceiver, num_latents=4, latent_dim=8))
    with pytest.raises(UserError, match="ViT has no feature maps"):
        detector(spec, partial(ViT, name="vit_tiny_patch16_224"))
    with pytest.raises(UserError, match=r"anchor_sizes \[8, 16\] are 2: give 5, one for each of the 4 feature maps"):
        detector(spec, anchor_sizes=(8, 16))
    with pytest.raises(UserError, match="Detection needs detection data"):
        detector(Digits(bands=1).spec)
    with pytest.raises(UserError, match="needs single_label or multi_label data, these are detection"):
        Classification(spec, partial(Perceiver, num_latents=4, latent_dim=8))


def small_run(tmp_path: Path, *options: str) -> Path:
    fit.main([
        "--config", CONFIG, "--runs_dir", str(tmp_path / "runs"), "--data.scenes", "[8, 3, 5]",
        "--data.data_dir", str(tmp_path / "composed"), "--data.side", "48", "--data.batch_size", "2",
        "--model.channels", "16", "--model.box_features", "32", "--model.regions", "16",
        "--model.proposals", "100", *options,
    ])  # fmt: skip
    return tmp_path / "runs" / "composed" / "resnet" / "seed0"


def test_fast_dev_run(tmp_path):
    folder = small_run(tmp_path, "--trainer.fast_dev_run", "true")
    assert json.loads((folder / "results.json").read_text())["metrics"]["test"]["samples"] == 2


def test_a_run_keeps_its_predictions_which_evaluate_finds_again_and_no_others_pass(tmp_path):
    folder = small_run(tmp_path, "--trainer.max_epochs", "2")
    results = json.loads((folder / "results.json").read_text())["metrics"]
    wanted = {"samples", *(prefix + name for prefix in KINDS.values() for name in STATISTICS)}
    assert set(results["val"]) == set(results["test"]) == wanted
    for kind, field in (("bbox", "bbox"), ("segm", "segmentation")):
        predictions = json.loads((folder / f"predictions_{kind}.json").read_text())
        assert predictions
        assert all(set(thing) == {"image_id", "category_id", "score", field} for thing in predictions)
        assert {thing["category_id"] for thing in predictions} <= set(range(1, 11))
        assert {thing["image_id"] for thing in predictions} <= set(range(1, 6))
    assert evaluate.main(["--run", str(folder)]) == results["test"]
    for kind in KINDS:
        again = folder / f"evaluation_test_last_predictions_{kind}.json"
        assert again.read_bytes() == (folder / f"predictions_{kind}.json").read_bytes()
    assert not list(folder.rglob("*.part"))

    exchanged = ["the predictions are not those that results.json was written with"]
    assert Record.of(Run(folder)).contradictions == []
    kept = [folder / f"predictions_{kind}.json" for kind in KINDS]
    for path in kept:
        content = path.read_bytes()
        path.write_text("[]")
        assert Record.of(Run(folder)).contradictions == exchanged
        path.unlink()
        assert Record.of(Run(folder)).contradictions == exchanged
        path.write_bytes(content)
    assert Record.of(Run(folder)).contradictions == []
    (folder / "predictions.json").write_text("[]")  # the one file of older runs
    assert Record.of(Run(folder)).contradictions == exchanged
