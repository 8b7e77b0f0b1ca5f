"""timm's lambda networks with our layers: the same outputs, gradients and statistics, also in training."""

import copy

import pytest
import timm
import torch
from timm.layers.lambda_layer import LambdaLayer as TimmLambdaLayer
from torch import nn

import src
from datamodules import DataSpec, ModalitySpec, UserError
from src.backbones import LambdaLayer, TimmLambdaResNet
from src.training.weights import load_weights

SPEC = DataSpec({"image": ModalitySpec(3, 2, 64 * 64, (64, 64), 2)}, "single_label", ("a", "b"))


def shaken(model: nn.Module) -> nn.Module:
    """With random statistics of norms, and blocks whose last norm is not 0."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_a_network_of_timm_computes_the_same(training):
    theirs = shaken(timm.create_model("lambda_resnet26t", num_classes=5)).train(training)
    ours = src.accelerate(copy.deepcopy(theirs))
    assert not any(isinstance(module, TimmLambdaLayer) for module in ours.modules())
    assert sum(isinstance(module, LambdaLayer) for module in ours.modules()) == 3
    x = torch.randn(2, 3, 128, 128)
    found, wanted = ours(x), theirs(x)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    if training:
        for buffer, wanted in zip(ours.buffers(), theirs.buffers(), strict=True):
            assert (buffer - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("options", [{"r": 5}, {"r": None}, {"r": 5, "qkv_bias": True, "stride": 2}])
@pytest.mark.parametrize("training", [False, True])
def test_every_kind_of_layer_computes_the_same_with_its_gradients(options, training):
    torch.manual_seed(0)
    theirs = shaken(nn.Sequential(TimmLambdaLayer(16, 16, feat_size=(6, 8), dim_head=4, **options))).double()
    theirs = theirs.train(training)
    for parameter in theirs.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
    ours = src.accelerate(copy.deepcopy(theirs))
    x = torch.randn(2, 16, 6, 8, dtype=torch.float64, requires_grad=True)
    found, wanted = ours(x), theirs(x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(wanted)
    of_ours, of_theirs = (torch.autograd.grad(y, x, upstream)[0] for y in (found, wanted))
    torch.testing.assert_close(of_ours, of_theirs, rtol=1e-10, atol=1e-10)


def test_a_model_without_lambda_layers_is_refused():
    with pytest.raises(UserError, match="ResNet has no lambda layer of timm"):
        src.accelerate(timm.create_model("resnet10t"))


def test_the_backbone_begins_with_weights_of_timm(tmp_path, monkeypatch):
    published = shaken(timm.create_model("lambda_resnet26t"))
    torch.save(published.state_dict(), tmp_path / "published.pth")
    create = timm.create_model

    def published_here(name, **options):
        return create(name, pretrained_cfg_overlay={"file": str(tmp_path / "published.pth")}, **options)

    monkeypatch.setattr(timm, "create_model", published_here)
    backbone = TimmLambdaResNet(SPEC).eval()
    assert load_weights(backbone, "timm:lambda_resnet26t").whole
    inputs = SPEC.example_inputs(2)
    image = inputs["image"].values.unflatten(1, (64, 64)).movedim(-1, 1)
    wanted = published.eval().forward_features(image).flatten(2).transpose(1, 2)
    assert (backbone(inputs) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    maps = backbone.feature_maps(inputs)
    assert [found.shape[-1] for found in maps] == [16, 8, 4, 2]
    assert backbone.num_features == maps[-1].shape[1] == backbone(inputs).shape[-1]
