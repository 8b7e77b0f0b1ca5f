"""The baselines: what they take, what they give, and what the transformer does not depend on."""

from dataclasses import replace

import pytest
import torch
from timm.models.resnet import BasicBlock

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from src.backbones import EfficientNet, ResNet, Transformer, ViT
from src.backbones.baselines import to_image

SMALL = {"dim": 16, "depth": 2, "heads": 4}
IMAGE = DataSpec({"image": ModalitySpec(3, 10, 64 * 48, (64, 48), 2)}, "single_label", ("a", "b"))


@pytest.mark.parametrize(("spec", "elements"), [("image_spec", 48), ("clip_spec", 36), ("set_spec", 20)])
def test_transformer_gives_features_of_all_elements(spec, elements, request):
    spec = request.getfixturevalue(spec)
    model = Transformer(spec, **SMALL)
    assert model(spec.example_inputs(3)).shape == (3, elements, 16)
    assert model.num_features == 16
    assert model.receptive_field() == elements


def test_transformer_averages_large_grids_down(image_spec):
    model = Transformer(image_spec, **SMALL, max_side=4)
    image = image_spec.example_inputs(2)["image"]
    assert model({"image": image}).shape == (2, 4 * 4, 16)
    assert model.receptive_field() == 16
    small = model.downsample(image)
    assert small.grid == (4, 4)
    values = image.values.reshape(2, 8, 6, 3)
    torch.testing.assert_close(small.values[:, 0], values[:, :2, :2].mean(dim=(1, 2)))
    torch.testing.assert_close(small.positions[0], image.positions.reshape(8, 6, 10)[:2, :2].mean(dim=(0, 1)))


@pytest.mark.parametrize("spec", ["image_spec", "set_spec"])
@pytest.mark.parametrize("own_order", [False, True])
def test_permuting_elements_permutes_the_transformers_features(spec, own_order, request):
    spec = request.getfixturevalue(spec)
    model = Transformer(spec, **SMALL).double()
    ((name, array),) = spec.example_inputs(3).items()
    array = array.to(torch.float64)
    count = array.values.shape[1]
    order = torch.stack([torch.randperm(count) for _ in range(3)]) if own_order else torch.randperm(count)
    rows = torch.arange(3)[:, None]
    wanted = model({name: array})[rows, order.expand(3, -1)]
    torch.testing.assert_close(model({name: array.permute(order)}), wanted, rtol=1e-12, atol=1e-12)


def test_padding_with_a_mask_changes_no_feature_of_the_transformer(set_spec):
    model = Transformer(set_spec, **SMALL).double()
    points = set_spec.example_inputs(3)["points"].to(torch.float64)
    longer = replace(points, mask=(torch.arange(20) < 13).expand(3, -1))
    shorter = ByteArray(points.values[:, :13], points.positions[:13])
    found = model({"points": longer})[:, :13]
    torch.testing.assert_close(found, model({"points": shorter}), rtol=1e-12, atol=1e-12)


def test_a_mask_of_one_modality_leaves_the_others_readable(clip_spec):
    model, inputs = Transformer(clip_spec, **SMALL).double(), clip_spec.example_inputs(2)
    inputs = {name: array.to(torch.float64) for name, array in inputs.items()}
    hidden = replace(inputs["audio"], mask=torch.zeros(2, 12, dtype=torch.bool))
    noise = replace(hidden, values=torch.randn_like(hidden.values))
    found = [model({**inputs, "audio": audio})[:, 12:] for audio in (hidden, noise)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("positions", "channels"), [(False, 3), (True, 13)])
def test_resnet_reads_channels_and_positions_if_asked(positions, channels):
    model = ResNet(IMAGE, name="resnet18", positions=positions)
    assert model.network.conv1.in_channels == channels
    assert model(IMAGE.example_inputs(2)).shape == (2, 2 * 2, 512)  # 64 x 48 at a stride of 32, rounded up
    assert model.num_features == 512
    assert model.receptive_field() == 49


def test_resnet_sees_the_picture_and_not_its_transpose():
    model = ResNet(IMAGE, name="resnet18").eval()
    picture = torch.randn(1, 3, 64, 48)
    byte_array = ByteArray(picture.flatten(2).transpose(1, 2), torch.zeros(64 * 48, 10), (64, 48))
    wanted = model.network(picture).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model({"image": byte_array}), wanted)


@pytest.mark.parametrize("spec", ["clip_spec", "set_spec"])
def test_resnet_refuses_several_modalities_and_sets(spec, request):
    with pytest.raises(UserError, match="ResNet needs a single modality on a 2-D grid"):
        ResNet(request.getfixturevalue(spec), name="resnet18")


@pytest.mark.parametrize("name", ["resnet19", "vit_base_patch16_224"])
def test_resnet_refuses_other_names_in_one_line(name):
    with pytest.raises(UserError, match=f"{name}.*resnet18") as caught:
        ResNet(IMAGE, name=name)
    assert len(str(caught.value)) < 400


def test_resnet_takes_permuted_elements_as_a_picture_and_refuses_sets():
    image = IMAGE.example_inputs(1)["image"]
    permuted = image.permute(torch.randperm(64 * 48))
    model = ResNet(IMAGE, name="resnet18").eval()
    assert model({"image": permuted}).shape == model({"image": image}).shape
    with pytest.raises(UserError, match="set"):
        model({"image": replace(permuted, grid=None)})


def test_gradients_reach_all_parameters(clip_spec):
    resnet = ResNet(IMAGE, name="resnet18")
    for block in resnet.modules():
        if isinstance(block, BasicBlock):  # the last BatchNorm of a block starts from zero
            torch.nn.init.ones_(block.bn2.weight)
    for model, spec in ((Transformer(clip_spec, **SMALL), clip_spec), (resnet, IMAGE)):
        model(spec.example_inputs(4)).square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


NETWORKS = [
    (ResNet, {"name": "resnet18"}, 49),
    (EfficientNet, {"name": "efficientnet_b0"}, 9),
    (ViT, {"name": "vit_tiny_patch16_224"}, 256),
    (ViT, {"name": "vit_tiny_patch16_224", "patch": 8, "positions": True}, 64),
]


@pytest.mark.parametrize(("backbone", "options", "pixels"), NETWORKS)
def test_the_first_layer_sees_as_many_pixels_as_receptive_field_says(backbone, options, pixels):
    model = backbone(IMAGE, **options).eval()
    assert model.receptive_field() == pixels
    first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    picture = torch.randn(1, first.in_channels, 64, 48, requires_grad=True)
    y = first(picture)
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    assert picture.grad.ne(0).any(1).sum() == pixels


@pytest.mark.parametrize(("backbone", "options", "pixels"), NETWORKS[1:])
def test_features_of_pictures_that_are_not_square(backbone, options, pixels):
    model = backbone(IMAGE, **options)
    cells = 2 * 2 if backbone is EfficientNet else 1 + 64 * 48 // pixels
    assert model(IMAGE.example_inputs(2)).shape == (2, cells, model.num_features)


def test_feature_maps_come_at_four_strides_and_vit_has_none():
    for backbone, name in ((ResNet, "resnet18"), (EfficientNet, "efficientnet_b0")):
        maps = backbone(IMAGE, name=name).feature_maps(IMAGE.example_inputs(1))
        assert [tuple(m.shape[2:]) for m in maps] == [(16, 12), (8, 6), (4, 3), (2, 2)]
    with pytest.raises(UserError, match=r"ViT.*ResNet"):
        ViT(IMAGE, name="vit_tiny_patch16_224").feature_maps(IMAGE.example_inputs(1))


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_of_an_image_keep_the_channels_last(channels):
    spec = ModalitySpec(channels, 2, 6 * 8, (6, 8), 2)
    image = to_image(DataSpec({"image": spec}, "single_label", ("a",)).example_inputs(2)["image"], positions=False)
    assert image.shape == (2, channels, 6, 8)
    assert torch.nn.Conv2d(channels, 4, 3)(image).stride(1) == 1
