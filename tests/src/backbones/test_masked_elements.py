"""What masked elements hold reaches no backbone's features and no gradient; what a backbone was not built for is named."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from datamodules.core.positions import axis_features, grid_features
from src.backbones import EfficientNet, LambdaNet, LambdaResNet, Perceiver, ResNet, Transformer, ViT
from src.backbones.base import Backbone

AXES = axis_features((32, 32), bands=8)
IMAGE = DataSpec({"image": ModalitySpec(3, AXES.shape[-1], 1024, (32, 32), 2)}, "single_label", ("a", "b"))
POINTS = DataSpec({"points": ModalitySpec(3, 9, 20, None, 3)}, "single_label", ("a", "b"))
PERCEIVER = partial(Perceiver, num_latents=4, latent_dim=16, cross_attends=2, self_attends_per_block=1, self_heads=2)
TRANSFORMER = partial(Transformer, dim=16, depth=1, heads=2)
IMAGES = {
    "Perceiver": PERCEIVER,
    "Perceiver, learned positions": partial(PERCEIVER, positions="learned"),
    "LambdaNet": partial(LambdaNet, widths=(16, 16), blocks_per_stage=1, patch={"image": 4}),
    "LambdaResNet": partial(LambdaResNet, depth=26, scope=3, stages="CCLL"),
    "ResNet": partial(ResNet, name="resnet10t"),
    "ResNet with positions": partial(ResNet, name="resnet10t", positions=True),
    "EfficientNet": EfficientNet,
    "ViT": partial(ViT, name="vit_tiny_patch16_224", patch=16, depth=1),
    "Transformer": partial(TRANSFORMER, max_side=8),
}
SETS = {
    "Perceiver": PERCEIVER,
    "LambdaNet": partial(LambdaNet, widths=(16, 16), blocks_per_stage=1),
    "Transformer": TRANSFORMER,
}


def mean_and_gradients(model: Backbone, inputs: dict[str, ByteArray]) -> list[Tensor]:
    """The mean features, which tasks read, and the gradients of all parameters and of the values."""
    for array in inputs.values():
        array.values.requires_grad_()
    features = model(inputs).mean(dim=1)
    given = [*model.parameters(), *(array.values for array in inputs.values())]
    return [
        features,
        *(g for g in torch.autograd.grad(features.square().sum(), given, allow_unused=True) if g is not None),
    ]


def image(separable: bool = True) -> ByteArray:
    positions = grid_features(AXES, (32, 32))
    return ByteArray(torch.randn(2, 1024, 3), positions, (32, 32), axes=AXES if separable else None)


def points() -> ByteArray:
    return ByteArray(torch.randn(2, 20, 3), torch.randn(2, 20, 9))


@pytest.mark.parametrize(
    ("spec", "make", "array"),
    [pytest.param(IMAGE, make, image, id=f"{name} on images") for name, make in IMAGES.items()]
    + [pytest.param(IMAGE, PERCEIVER, partial(image, separable=False), id="Perceiver on images without axes")]
    + [pytest.param(POINTS, make, points, id=f"{name} on sets") for name, make in SETS.items()],
)
def test_what_masked_elements_hold_changes_no_bit_of_features_and_gradients(spec, make, array):
    model, given = make(spec), array()
    mask = torch.rand(given.values.shape[:2]) < 0.6
    mask[0, :5] = False
    found = []
    for filling in (0.0, float("nan"), float("inf"), 1e30):
        padding = ~mask[..., None]
        positions = given.positions
        if positions.dim() == 3:
            positions = positions.masked_fill(padding, filling)
        masked = replace(given, values=given.values.masked_fill(padding, filling), positions=positions, mask=mask)
        torch.manual_seed(0)
        (name,) = spec.modalities
        found.append(mean_and_gradients(model, {name: masked}))
    assert all(x.isfinite().all() for x in found[0])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_mean_of_a_transformers_features_is_that_of_its_real_elements():
    model, given = TRANSFORMER(POINTS), points()
    mask = torch.arange(20).expand(2, -1) < torch.tensor([[20], [7]])
    found = model({"points": replace(given, mask=mask)})
    short = ByteArray(given.values[1:, :7], given.positions[1:, :7])
    torch.testing.assert_close(found[1].mean(dim=0), model({"points": short})[0].mean(dim=0))


def test_a_transformer_pools_real_pixels_alone():
    model, given = TRANSFORMER(IMAGE, max_side=16), image()
    mask = torch.ones(2, 32, 32, dtype=torch.bool)
    mask[:, ::2] = False  # every other row, and the two last
    mask[:, 30:] = False
    pooled = model.downsample(replace(given, values=given.values * mask.flatten(1)[..., None], mask=mask.flatten(1)))
    pixels = given.values.unflatten(1, (16, 2, 16, 2))
    wanted = pixels[:, :, 1].mean(dim=3)  # of the second row of each block
    torch.testing.assert_close(pooled.values.unflatten(1, (16, 16))[:, :15], wanted[:, :15])
    assert pooled.mask.unflatten(1, (16, 16)).sum(dim=2).tolist() == [[16] * 15 + [0]] * 2


@pytest.mark.parametrize("make", IMAGES.values(), ids=IMAGES)
def test_other_channels_are_named_in_one_line_with_modality_and_sizes(make):
    model, given = make(IMAGE), image()
    wrong = replace(given, values=torch.randn(2, 1024, 4))
    with pytest.raises(UserError, match=r"image has 4 channels and 34 of positions, .* built for 3 and 34") as error:
        model({"image": wrong})
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the batch has no image, only picture"):
        model({"picture": given})
