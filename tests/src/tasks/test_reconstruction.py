"""Reconstruction: what its metrics say, which elements count, and that it learns and is recorded as any task."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from sklearn.metrics import r2_score

import src.fit as fit
from datamodules import ByteArray, Digits, UserError
from src.backbones import Perceiver, PerceiverIO
from src.metrics.reconstruction import ReconstructionMetrics
from src.tasks import Reconstruction
from tests.support import ROOT

SMALL = {"num_latents": 4, "latent_dim": 16, "cross_attends": 1, "self_attends_per_block": 1, "self_heads": 4}


def test_metrics_are_those_of_all_real_values_in_batches_of_any_size():
    values, predicted = torch.randn(9, 6, 3), torch.randn(9, 6, 3)
    mask, weight = torch.rand(9, 6) < 0.7, torch.ones(9)
    weight[4] = 0
    predicted[4] = torch.nan  # padding may hold anything
    metrics = ReconstructionMetrics()
    for part in (slice(0, 2), slice(2, 9)):
        array = ByteArray(values[part], torch.zeros(6, 1), mask=mask[part])
        metrics.update(predicted[part], array, weight[part], [f"sample{n}" for n in range(9)][part])
    found = metrics.compute()
    counted = mask & (weight > 0)[:, None]
    wanted, guessed = values[counted].flatten().double(), predicted[counted].flatten().double()
    assert found["rmse"].item() == pytest.approx((wanted - guessed).square().mean().sqrt().item(), rel=1e-12)
    assert found["r2"].item() == pytest.approx(r2_score(wanted, guessed), rel=1e-10)
    assert found["samples"] == 8
    predicted[2, 0, 0] = torch.inf
    with pytest.raises(UserError, match=r"scores of 1 of 9 samples .* \(sample2\)"):
        metrics.update(predicted, ByteArray(values, torch.zeros(6, 1)), weight, [f"sample{n}" for n in range(9)])


def test_masked_elements_do_not_count_in_the_loss():
    data = Digits(batch_size=4)
    task = Reconstruction(data.spec, partial(PerceiverIO, outputs="image", **SMALL), "image")
    batch = data.flatten(next(iter(data.loader("train"))))
    mask = torch.rand(4, 64) < 0.5
    mask[3] = True
    found = []
    for filling in (0.0, torch.nan):
        array = batch.inputs["image"]
        array = replace(array, values=array.values.masked_fill(~mask[..., None], filling), mask=mask)
        masked = replace(batch, inputs={"image": array})
        found.append(task.errors(task(masked.inputs), masked))
    assert torch.equal(*found)
    alone = replace(batch, inputs={"image": array.examples(slice(3, 4))})
    whole = replace(alone.inputs["image"], mask=None)
    expected = task.errors(task({"image": whole}), replace(alone, inputs={"image": whole}))
    torch.testing.assert_close(found[0][3:], expected)


def test_a_backbone_without_a_row_for_each_element_and_an_unknown_modality_are_refused():
    data = Digits(batch_size=2)
    task = Reconstruction(data.spec, partial(Perceiver, **SMALL), "image")
    with pytest.raises(UserError, match="Perceiver gives 4 rows of features for 64 elements of image: use PerceiverIO"):
        task(data.spec.example_inputs(2))
    with pytest.raises(UserError, match=r"modality is 'sound', the data have \['image'\]"):
        Reconstruction(data.spec, partial(Perceiver, **SMALL), "sound")


def test_it_learns_more_than_the_mean_picture(tmp_path):
    config = ROOT / "configs" / "digits_reconstruction.yaml"
    options = ["--trainer.max_epochs", "6", "--model.optimizer.lr", "0.01"]
    results = fit.main(["--config", str(config), "--runs_dir", str(tmp_path), *options]).results()
    data = Digits(batch_size=64)
    pictures = {split: data.flatten(batch) for split in ("train", "test") for batch in [next(iter(data.loader(split)))]}
    mean = pictures["train"].inputs["image"].values.mean(dim=0)
    rough = (pictures["test"].inputs["image"].values - mean).square().mean().sqrt().item()
    assert results.main_metric == "rmse"
    assert results.metrics["test"]["rmse"] < rough
    assert results.metrics["test"]["samples"] == len(data.split("test").keys)
