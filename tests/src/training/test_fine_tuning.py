"""Fine-tuning: frozen parts stay as they are, layers learn at their own rates, biases and norms may go without decay."""

from functools import partial

import lightning as L
import pytest
import torch
from torch import nn

from datamodules import Digits, UserError
from src.backbones import Perceiver, ResNet
from src.tasks import Classification
from src.training.batch_norm import SettleBatchNorms
from src.training.fine_tuning import layer_numbers, parameter_groups
from tests.support import QUIET

RESNET = partial(ResNet, name="resnet10t", stochastic_depth=0.5)
FROZEN = ("backbone.network.conv1", "backbone.network.bn1", "backbone.network.layer1")


def fitted(model: Classification, *callbacks: L.Callback, steps: int = 4) -> L.Trainer:
    trainer = L.Trainer(accelerator="cpu", max_steps=steps, val_check_interval=2, callbacks=list(callbacks), **QUIET)
    trainer.fit(model, Digits(batch_size=32))
    return trainer


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("callbacks", [[], [SettleBatchNorms(2)]])
def test_frozen_parts_keep_weights_and_statistics_and_the_others_learn(callbacks):
    torch.manual_seed(0)
    model = Classification(Digits().spec, RESNET, freeze=FROZEN)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-1, 1)
            norm.momentum = 0.25
    before = copied(model)
    trainer = fitted(model, *callbacks)
    trainer.test(model, Digits(batch_size=32), verbose=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(FROZEN)]
    assert {"head.weight", "backbone.network.layer2.0.bn1.running_mean"} <= changed
    assert {norm.momentum for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.25}
    model.train()
    assert not model.backbone.network.layer1.training
    assert model.backbone.network.layer2.training


def test_a_module_that_is_not_there_is_told_with_the_nearest():
    for names, said in (
        (["backbone.network.layr1"], r"no parameters: give names such as .*backbone\.network\.layer1"),
        (["backbone.network.lay"], "no parameters"),  # whole names alone
        (["backbone", "head"], "leaves nothing to train"),
    ):
        model = Classification(Digits().spec, RESNET, freeze=names)
        with pytest.raises(UserError, match=said):
            model.setup("fit")


def test_layers_learn_at_rates_that_fall_towards_the_input():
    small = partial(Perceiver, num_latents=4, latent_dim=16, cross_attends=1, self_attends_per_block=2, self_heads=2)
    model = Classification(Digits().spec, small, partial(torch.optim.SGD, lr=0.8), lr_decay=0.5)
    numbers = layer_numbers(model.backbone)
    assert numbers["latents"] == 0
    assert numbers["cross.0.query.weight"] == 1
    assert numbers["transformers.0.1.out.weight"] == 3
    trainer = fitted(model, steps=1)
    (optimizer,) = trainer.optimizers
    rate_of = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rate_of[id(p)] for name, p in model.named_parameters()}
    assert found["head.bias"] == 0.8
    assert found["backbone.transformers.0.1.out.weight"] == 0.4
    assert found["backbone.latents"] == 0.8 / 16
    assert len(found) == len(rate_of)


def test_layers_of_timm_follow_its_stages():
    numbers = layer_numbers(ResNet(Digits().spec, name="resnet18"))
    assert [numbers[f"network.{name}.weight"] for name in ("bn1", "layer1.0.conv1", "layer4.1.bn2")] == [0, 1, 8]


def test_biases_and_norms_do_not_decay():
    model = Classification(Digits().spec, RESNET)
    groups = parameter_groups(model, 1.0, "weights")
    without = {id(p) for group in groups if group.get("weight_decay") == 0.0 for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in without}
    assert {"head.bias", "backbone.network.bn1.weight", "backbone.network.layer1.0.bn1.bias"} <= names
    assert not names & {"head.weight", "backbone.network.layer1.0.conv1.weight"}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    # weights without a gradient of the loss: decay alone moves them
    trained = Classification(Digits().spec, RESNET, partial(torch.optim.SGD, lr=0.1, weight_decay=0.5), decay="weights")
    optimizer = trained.make_optimizer(parameter_groups(trained, 1.0, "weights"))
    before = {name: p.detach().clone() for name, p in trained.named_parameters()}
    for parameter in trained.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (1.0 if name in names else 0.95))
