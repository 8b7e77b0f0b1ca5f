"""Evaluation after batch normalisation has taken its statistics again (test_ranks.py checks their mean over ranks)."""

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn

from datamodules import Digits, UserError
from src.backbones import Perceiver, ResNet
from src.metrics.logged import metrics_of
from src.tasks import Classification
from src.training.batch_norm import SettleBatchNorms
from tests.support import QUIET

RESNET = partial(ResNet, name="resnet10t")
BATCHES = 3


def model_of(data: Digits, backbone=RESNET) -> Classification:
    torch.manual_seed(0)
    return Classification(data.spec, backbone, partial(torch.optim.AdamW, lr=3e-3), dropout=0.1)


def trained(*callbacks: L.Callback) -> tuple[L.Trainer, Classification, Digits]:
    data = Digits(batch_size=32)
    model = model_of(data)
    trainer = L.Trainer(accelerator="cpu", max_steps=12, val_check_interval=6, callbacks=list(callbacks), **QUIET)
    trainer.fit(model, data)
    return trainer, model, data


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def evaluated(trainer: L.Trainer, model: Classification, data: Digits) -> dict[str, float]:
    trainer.test(model, data, verbose=False)
    return metrics_of(trainer, "test")


def test_statistics_are_means_over_training_batches_with_the_weights_that_are_evaluated():
    trainer, model, data = trained(SettleBatchNorms(BATCHES))
    found = evaluated(trainer, model, data)
    model.eval()
    seen = []
    first = norms(model)[0]
    first.register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    batches = iter(Digits(batch_size=32).loader("train", training=True))
    with torch.no_grad():
        for _ in range(BATCHES):
            model(data.flatten(next(batches)).inputs)
    torch.testing.assert_close(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
    assert {norm.momentum for norm in norms(model)} == {0.1}
    # whatever training has left
    for norm in norms(model):
        norm.running_mean.fill_(7.0)
        norm.running_var.fill_(1e-3)
    assert evaluated(trainer, model, data) == found


def test_training_is_not_changed():
    ours, without = trained(SettleBatchNorms(BATCHES))[1], trained()[1]
    for (name, one), other in zip(ours.named_parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert not torch.equal(norms(ours)[0].running_mean, norms(without)[0].running_mean)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_that_has_nothing_to_settle_is_refused(frozen):
    data = Digits(batch_size=32)
    model = model_of(data) if frozen else model_of(data, Perceiver)
    model.backbone.requires_grad_(not frozen)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, callbacks=[SettleBatchNorms()], **QUIET)
    with pytest.raises(UserError, match=r"remove it from trainer\.callbacks"):
        trainer.fit(model, data)
    with pytest.raises(UserError, match="pass at least 1"):
        SettleBatchNorms(0)
