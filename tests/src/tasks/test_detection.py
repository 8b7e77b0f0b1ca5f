"""Detection: it learns scenes, its metrics are pycocotools' on the annotation file, crowds and padding do not count."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

import src.evaluate as evaluate
import src.fit as fit
from datamodules import Composed, DataSpec, Digits, UserError
from datamodules.detection.annotations import annotation_file
from datamodules.detection.targets import Annotations
from src.backbones import LambdaResNet, Perceiver, ResNet, ViT
from src.metrics.detection import SHARES, DetectionMetrics, ground_truth
from src.tasks import Classification, Detection
from src.tasks.detection import in_original, to_learn
from tests.support import ROOT
from tests.support.coco import data_of, write_coco
from tests.support.coco import targets as targets_of

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


def targets(data) -> list[dict]:
    return list(targets_of(data).values())


def perfect(target: dict) -> dict[str, Tensor]:
    """The objects of an image, crowds left out, as a detector would give them."""
    truth = ground_truth(target)
    single = truth["iscrowd"] == 0
    found = {name: truth[name][single] for name in ("boxes", "labels", "masks")}
    return {**found, "scores": torch.ones(len(found["boxes"]))}


def doubtful(target: dict) -> dict[str, Tensor]:
    """Every object twice, moved, some with a wrong label, with few different scores."""
    found = {name: torch.cat([value, value]) for name, value in perfect(target).items()}
    generator = torch.Generator().manual_seed(int(target["image_id"]))
    count = len(found["boxes"])
    found["boxes"] += torch.randn(count, 4, generator=generator)
    found["masks"] = (
        torch.stack([m.roll(n % 4, dims=1) for n, m in enumerate(found["masks"])]) if count else found["masks"]
    )
    wrong = torch.rand(count, generator=generator) < 0.2
    found["labels"] = torch.where(wrong, 2 - found["labels"].clamp(max=2), found["labels"])
    found["scores"] = torch.randint(1, 4, (count,), generator=generator) / 4
    return found


def measured(predictions: list[dict], truth: list[dict]) -> dict[str, float]:
    metrics = DetectionMetrics()
    for found, target in zip(predictions, truth, strict=True):
        metrics.update([found], [target])
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("backbone", [TINY, partial(LambdaResNet, depth=26, scope=3)])
def test_losses_fall_on_composed_scenes(scenes, backbone):
    batch = next(scenes.flatten(compact) for compact in scenes.loader("train"))
    batch.target[0] = {name: batch.target[0][name][:0] for name in LEARNT}  # a scene without objects
    model = detector(scenes.spec, backbone)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    totals = []
    for _ in range(12):
        _, losses = model.detect(model(batch.inputs), [to_learn(target) for target in batch.target])
        assert set(losses) == {
            "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"
        }  # fmt: skip
        totals.append(torch.stack(list(losses.values())).sum())
        optimizer.zero_grad()
        totals[-1].backward()
        optimizer.step()
    assert torch.stack(totals).isfinite().all()
    assert totals[-1] < 0.7 * totals[0]


def test_the_truth_as_prediction_has_an_average_precision_of_1(coco, scenes):
    for data in (data_of(coco), scenes):
        truth = targets(data)
        found = measured([perfect(target) for target in truth], truth)
        assert found["samples"] == len(truth)
        assert {found[kind + name] for kind in ("", "segm_") for name in SHARES} <= {1.0, -1.0}
        assert found["map"] == found["segm_map"] == 1


def test_metrics_are_those_of_pycocotools_on_the_annotation_file_and_the_results(coco, scenes):
    for data, split in ((data_of(coco), "val2017"), (scenes, "test")):
        truth = targets(data)
        metrics = DetectionMetrics()
        metrics.update([doubtful(target) for target in truth], truth)
        values = metrics.compute()
        file = COCO(annotation_file(data.data_dir, split))
        file.dataset.setdefault("info", {})
        results = json.loads(json.dumps(metrics.predictions(data.category_ids)))
        for kind, prefix in (("bbox", ""), ("segm", "segm_")):
            if kind == "segm":  # where boxes are given, pycocotools takes their area for that of masks, too
                results = [{name: value for name, value in result.items() if name != "bbox"} for result in results]
            wanted = COCOeval(file, file.loadRes(results), kind)
            wanted.evaluate()
            wanted.accumulate()
            wanted.summarize()
            assert [values[prefix + name].item() for name in SHARES] == pytest.approx(list(wanted.stats[:6]), abs=1e-6)
        assert 0.1 < values["map"] < 0.95


def test_what_is_found_in_a_crowd_counts_neither_for_nor_against(coco):
    truth = targets(data_of(coco))
    label = truth[2]["labels"][truth[2]["iscrowd"]]

    def with_further(x0: int, y0: int, x1: int, y1: int) -> dict[str, float]:
        found = [perfect(target) for target in truth]
        mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
        mask[0, y0:y1, x0:x1] = 1
        box = torch.tensor([[x0, y0, x1, y1]]).float()
        wrong = {"boxes": box, "labels": label, "masks": mask, "scores": torch.full((1,), 2.0)}  # before all others
        found[2] = {name: torch.cat([wrong[name], found[2][name]]) for name in wrong}
        found[0]["labels"][:] = label  # an object of the crowd's class, so that the class counts
        relabelled = Annotations(replace(item, label=int(label)) for item in truth[0]["annotations"].items)
        return measured(found, [{**truth[0], "annotations": relabelled}, *truth[1:]])

    assert with_further(2, 2, 30, 14)["map"] == with_further(2, 2, 30, 14)["segm_map"] == 1
    assert with_further(2, 40, 30, 60)["map"] < 1
    assert [len(to_learn(target)["boxes"]) for target in truth] == [1, 0, 1]


@pytest.mark.parametrize("side", [64, 128])
def test_boxes_and_masks_come_back_to_the_original(side, coco):
    truth, found = targets(data_of(coco, side=side)), []
    for target in truth:
        objects = to_learn(target)
        count = len(objects["boxes"])
        filled = {**objects, "scores": torch.ones(count), "masks": torch.ones(count, 1, 28, 28)}
        found.append(in_original(filled, target))
        assert torch.allclose(found[-1]["boxes"], perfect(target)["boxes"], atol=1e-4)
        assert found[-1]["masks"].shape == perfect(target)["masks"].shape
    assert measured(found, truth)["segm_map_50"] == 1


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


def rank_metrics(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    truth, metrics = torch.load(folder / "targets.pt", weights_only=False), DetectionMetrics()
    mine = truth[rank::world] if rank < 2 else []  # the third rank has but padding
    if rank < 2 and world == 3:
        mine = truth[rank::2]
    metrics.update([doubtful(target) for target in mine], mine)
    torch.save((metrics.predictions(range(10)), metrics.compute()), folder / f"{rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_find_what_one_finds(world, scenes, tmp_path):
    truth, metrics = targets(scenes), DetectionMetrics()
    torch.save(truth, tmp_path / "targets.pt")
    metrics.update([doubtful(target) for target in truth], truth)
    mp.start_processes(rank_metrics, args=(world, tmp_path), nprocs=world, start_method="fork")
    for rank in range(world):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == (
            metrics.predictions(range(10)),
            metrics.compute(),
        )


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


def test_a_run_keeps_its_predictions_and_evaluate_finds_the_same(tmp_path):
    folder = small_run(tmp_path, "--trainer.max_epochs", "2")
    results = json.loads((folder / "results.json").read_text())["metrics"]
    wanted = {"samples", *SHARES, *(f"segm_{name}" for name in SHARES)}
    assert set(results["val"]) == set(results["test"]) == wanted
    predictions = json.loads((folder / "predictions.json").read_text())
    assert predictions
    assert {thing["category_id"] for thing in predictions} <= set(range(1, 11))
    assert {thing["image_id"] for thing in predictions} <= set(range(1, 6))
    assert evaluate.main(["--run", str(folder)]) == results["test"]
    assert json.loads((folder / "evaluation_test_last_predictions.json").read_text()) == predictions
    assert not list(folder.rglob("*.part"))
