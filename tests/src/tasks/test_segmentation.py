"""Segmentation: which class a pixel has, what mean IoU is, and that a run on composed scenes is recorded."""

from functools import partial

import pytest
import torch
from sklearn.metrics import jaccard_score

import src.export as export
import src.fit as fit
from datamodules import Batch, Composed, UserError
from src.backbones import Perceiver, PerceiverIO
from src.metrics.segmentation import IGNORED, SegmentationMetrics
from src.tasks import Segmentation
from tests.support import ROOT

SMALL = {"num_latents": 4, "latent_dim": 16, "cross_attends": 1, "self_attends_per_block": 1, "self_heads": 4}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Composed:
    folder = tmp_path_factory.mktemp("scenes")
    data = Composed(str(folder), scenes=(4, 2, 2), side=48, bands=4, batch_size=4)
    data.prepare_data()
    return data


def task_of(data: Composed) -> Segmentation:
    return Segmentation(data.spec, partial(PerceiverIO, outputs="image", query_dim=12, **SMALL))


def test_mean_iou_is_scikit_learns_over_the_classes_that_occur():
    target, scores = torch.randint(0, 3, (5, 40)), torch.randn(5, 40, 4)  # class 3 is only taken for others
    target[:, 30:] = IGNORED
    weight = torch.tensor([1.0, 1, 0, 1, 1])
    metrics = SegmentationMetrics(4)
    keys = [f"scene{n}" for n in range(5)]
    for part in (slice(0, 2), slice(2, 5)):
        metrics.update(scores[part], target[part], weight[part], keys[part])
    found = metrics.compute()
    counted = (target != IGNORED) & (weight > 0)[:, None]
    wanted = jaccard_score(target[counted], scores.argmax(2)[counted], labels=[0, 1, 2], average="macro")
    assert found["miou"].item() == pytest.approx(wanted, rel=1e-6)
    assert found["samples"] == 4
    scores[1, 0, 0] = torch.nan
    with pytest.raises(UserError, match="scene1"):
        metrics.update(scores, target, weight, keys)


def test_a_pixel_has_the_class_of_the_first_object_on_it_and_crowds_and_padding_do_not_count(scenes):
    task, batch = task_of(scenes), scenes.flatten(next(iter(scenes.loader("train"))))
    side = 48
    masks = torch.zeros(3, side, side, dtype=torch.bool)
    masks[0, 2:6, 2:6], masks[1, 4:9, 4:9], masks[2, 20:23, 5:8] = True, True, True
    target = {"labels": torch.tensor([7, 2, 5]), "masks": masks, "iscrowd": torch.tensor([False, False, True])}
    real = torch.ones(side, side, dtype=torch.bool)
    real[:, 40:] = False
    image = batch.inputs["image"].examples(slice(0, 1))
    image = type(image)(image.values, image.positions, image.grid, mask=real.flatten()[None])
    classes = task.classes_of(Batch({"image": image}, [target], ["scene"], torch.ones(1))).view(side, side)
    assert classes[5, 5] == 7
    assert classes[8, 8] == 2
    assert classes[21, 6] == IGNORED
    assert (classes[:, 40:] == IGNORED).all()
    assert (classes == 10).sum() == real.sum() - 16 - 21 - 9  # the background, of ten digits


def test_its_loss_falls_on_composed_scenes(scenes):
    task, batch = task_of(scenes), scenes.flatten(next(iter(scenes.loader("train"))))
    optimizer, found = torch.optim.Adam(task.parameters(), 0.01), []
    for _ in range(15):
        loss = task.losses(task(batch.inputs), task.classes_of(batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.7 * found[0]


def test_a_backbone_without_a_row_for_each_pixel_is_refused(scenes):
    task = Segmentation(scenes.spec, partial(Perceiver, **SMALL))
    with pytest.raises(UserError, match="Perceiver gives 4 rows of features for 2304 pixels: use PerceiverIO"):
        task(scenes.spec.example_inputs(1))


def test_a_run_is_ranked_by_mean_iou_and_exported(tmp_path, capsys):
    config = ROOT / "configs" / "composed_perceiver_io.yaml"
    data = ["--data.data_dir", str(tmp_path / "composed"), "--data.scenes", "[8, 2, 2]", "--data.side", "48"]
    options = ["--data.bands", "4", "--data.batch_size", "2", "--trainer.max_epochs", "1"]
    run = fit.main(["--config", str(config), "--runs_dir", str(tmp_path / "runs"), *data, *options])
    results = run.results()
    assert results.main_metric == "miou"
    assert 0 < results.metrics["test"]["miou"] < 1
    assert results.metrics["test"]["samples"] == 2
    assert export.main([str(run.folder), "--to", "torch"]).is_file()
    assert ": 0 of 2 predictions on the test split differ" in capsys.readouterr().out
