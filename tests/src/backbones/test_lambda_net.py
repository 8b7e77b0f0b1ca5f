"""LambdaNet: towers on every kind of modality."""

from dataclasses import replace
from math import prod

import pytest
import torch

from datamodules import ByteArray, DataSpec, UserError
from src.backbones import LambdaNet
from src.backbones.lambda_networks.lambda_net import LambdaBlock, merge_cells, pool

SMALL = {"widths": (16, 24), "blocks_per_stage": 1, "key_depth": 4}


@pytest.mark.parametrize(
    ("spec", "patch", "modalities"),
    [
        ("image_spec", None, 1),
        ("image_spec", {"image": 2}, 1),
        ("image_spec", {"image": 5}, 1),  # does not divide the grid of 8 x 6
        ("clip_spec", None, 2),
        ("clip_spec", {"audio": 3, "video": 2}, 2),
        ("set_spec", None, 1),
    ],
)
def test_features_have_one_row_per_modality(spec, patch, modalities, request):
    spec = request.getfixturevalue(spec)
    model = LambdaNet(spec, patch, **SMALL)
    assert model(spec.example_inputs(3)).shape == (3, modalities, 24)
    assert model.num_features == 24


@pytest.mark.parametrize("spec", ["image_spec", "clip_spec", "set_spec"])
def test_gradients_reach_all_parameters(spec, request):
    spec = request.getfixturevalue(spec)
    model = LambdaNet(spec, **SMALL)
    for module in model.modules():
        if isinstance(module, LambdaBlock):  # the last BatchNorm of a block starts from zero
            torch.nn.init.ones_(module.widen[-1].weight)
    model(spec.example_inputs(4)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    # the BatchNorm after a lambda layer takes the scale of its values out: that gradient is 0 but for rounding
    reached = [p.grad.any() for n, p in model.named_parameters() if not n.endswith("norm_values.weight")]
    assert all(reached)


def test_receptive_field_is_all_elements_of_all_modalities(clip_spec):
    assert LambdaNet(clip_spec, **SMALL).receptive_field() == 12 + 24


def test_order_of_a_set_changes_no_output(set_spec):
    model = LambdaNet(set_spec, **SMALL).double().eval()
    points = set_spec.example_inputs(3)["points"].to(torch.float64)
    permuted = points.permute(torch.stack([torch.randperm(20) for _ in range(3)]))
    torch.testing.assert_close(model({"points": permuted}), model({"points": points}), rtol=1e-12, atol=1e-12)


def test_padding_a_set_with_a_mask_equals_the_shorter_set(set_spec):
    model = LambdaNet(set_spec, **SMALL).double().eval()
    points = set_spec.example_inputs(3)["points"].to(torch.float64)
    longer = ByteArray(points.values, points.positions, mask=(torch.arange(20) < 13).expand(3, -1))
    shorter = ByteArray(points.values[:, :13], points.positions[:13])
    torch.testing.assert_close(model({"points": longer}), model({"points": shorter}), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "patch"), [("image_spec", 1), ("image_spec", 3), ("set_spec", 1)])
def test_what_padding_holds_changes_no_bit_in_training(kind, patch, request):
    spec = request.getfixturevalue(kind)
    (name, array), *_ = spec.example_inputs(3).items()
    mask = torch.rand(array.values.shape[:2]) < 0.6
    found = []
    for value in (0.0, 1e6):
        torch.manual_seed(0)
        model = LambdaNet(spec, {name: patch}, **SMALL)
        values = array.values.masked_fill(~mask[..., None], value)
        found.append([model({name: replace(array, values=values, mask=mask)}), *(b.clone() for b in model.buffers())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_cells_are_averaged_over_the_real_ones():
    x = torch.tensor([[[1.0, 3.0, 5.0, 9.0, 2.0]]])
    mask = torch.tensor([[True, True, False, True, False]])
    assert pool(x, 2, mask).tolist() == [[[2.0, 9.0, 0.0]]]


@pytest.mark.parametrize("spec", ["clip_spec", "set_spec"])
def test_an_example_whose_modality_is_masked_whole_stays_finite(spec, request):
    spec = request.getfixturevalue(spec)
    model, inputs = LambdaNet(spec, **SMALL), spec.example_inputs(2)
    name, array = next(iter(inputs.items()))
    mask = torch.tensor([True, False])[:, None].expand(-1, array.values.shape[1])
    features = model({**inputs, name: replace(array, mask=mask)})
    features.sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_another_grid_raises_user_error(image_spec: DataSpec):
    image = image_spec.example_inputs(2)["image"]
    with pytest.raises(UserError, match=r"grid \(8, 6\)"):
        LambdaNet(image_spec, **SMALL)({"image": replace(image, grid=None)})


def test_a_new_block_without_stride_is_the_identity_on_positive_inputs():
    x = torch.rand(2, 16, 5, 3)
    assert torch.equal(LambdaBlock(16, 16, 1, 4, 4, (5, 3))(x, None)[0], x)


@pytest.mark.parametrize("grid", [(7,), (4, 6), (2, 3, 5)])
def test_merging_cells_keeps_every_value_and_pads_with_zeros(grid):
    x = 1 + torch.rand(2, 3, *grid)
    merged = merge_cells(x, 2)
    cells = [-(-length // 2) for length in grid]
    assert merged.shape == (2, 3 * 2 ** len(grid), *cells)
    assert merged.count_nonzero() == 2 * 3 * prod(grid)
    torch.testing.assert_close(merged.sum(), x.sum())
    corner = x[(..., *(slice(0, 2) for _ in grid))].flatten(1)
    assert torch.equal(
        merged[(..., *(0 for _ in grid))].sort(dim=1).values[:, -corner.shape[1] :], corner.sort(1).values
    )


def test_pooling_counts_borders_by_what_they_hold():
    assert torch.equal(pool(torch.ones(1, 1, 5, 3), 2), torch.ones(1, 1, 3, 2))


def test_pooling_leaves_an_axis_of_one_cell():
    x = torch.arange(4.0).reshape(1, 1, 1, 4)
    assert torch.equal(pool(x, 2), torch.tensor([0.5, 2.5]).reshape(1, 1, 1, 2))
