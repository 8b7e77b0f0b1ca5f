"""ByteArray and DataSpec: what belongs together stays together, and what does not fit is refused."""

import json
from dataclasses import replace

import pytest
import torch
import yaml

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from datamodules.core.positions import axis_features, grid_features

B, M, C, P = 3, 12, 2, 5


def make(shared: bool = True) -> ByteArray:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(B, M, C, generator=generator)
    positions = torch.randn(*(() if shared else (B,)), M, P, generator=generator)
    mask = torch.rand(B, M, generator=generator) < 0.7
    return ByteArray(values, positions, (3, 4), mask)


def orders(each: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randperm(M, generator=generator) for _ in range(B)]
    return torch.stack(drawn) if each else drawn[0]


def rows(array: ByteArray, example: int) -> list[tuple[float, ...]]:
    """Every element of one example as (values, positions, mask), in order."""
    assert array.mask is not None
    joined = torch.cat([array.concat()[example], array.mask[example, :, None].float()], dim=-1)
    return [tuple(row) for row in joined.tolist()]


@pytest.mark.parametrize("shared", [True, False])
def test_concat_puts_positions_behind_values(shared):
    array = make(shared)
    joined = array.concat()
    assert joined.shape == (B, M, C + P)
    for example in range(B):
        assert torch.equal(joined[example, :, :C], array.values[example])
        assert torch.equal(joined[example, :, C:], array.positions if shared else array.positions[example])


def test_concat_has_the_dtype_of_the_values():
    assert make().to(torch.bfloat16).concat().dtype == torch.bfloat16
    array = make()
    assert ByteArray(array.values.half(), array.positions).concat().dtype == torch.float16


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_permute_moves_values_positions_and_mask_together(shared, each):
    array, order = make(shared), orders(each)
    moved = array.permute(order)
    for example in range(B):
        own = order[example] if each else order
        before, after = rows(array, example), rows(moved, example)
        assert after == [before[place] for place in own.tolist()]
        assert sorted(after) == sorted(before)
        assert after != before


def test_permute_keeps_the_grid_and_shares_positions_only_where_the_order_is_shared():
    assert make().permute(orders(each=True)).grid == make().grid
    assert make().permute(orders(each=False)).positions.shape == (M, P)
    assert make().permute(orders(each=True)).positions.shape == (B, M, P)


def make_separable() -> ByteArray:
    axes = axis_features((3, 4), 1)
    return replace(make(), positions=grid_features(axes, (3, 4)), axes=axes)


@pytest.mark.parametrize("each", [True, False])
def test_restore_undoes_permutations_one_after_the_other(each):
    array = make_separable()
    moved = array.permute(orders(each)).permute(orders(True)).permute(orders(each))
    restored = moved.restore()
    assert restored.order is None
    assert restored.positions.dim() == 2
    for found, wanted in (
        (restored.values, array.values),
        (restored.mask, array.mask),
        (restored.positions, array.positions),
    ):
        assert torch.equal(found, wanted)
    assert array.restore() is array


def test_the_order_tells_where_every_element_was():
    array = make_separable()
    moved = array.permute(orders(False)).permute(orders(True))
    for example in range(B):
        assert torch.equal(moved.values[example], array.values[example, moved.order[example]])
        assert torch.equal(moved.positions[example], array.positions[moved.order[example]])


@pytest.mark.parametrize("each", [True, False])
def test_examples_are_selected_with_their_positions_mask_and_order(each):
    moved = make_separable().permute(orders(each))
    part = moved.examples(slice(1, 2))
    assert rows(part, 0) == rows(moved, 1)
    assert torch.equal(part.restore().values[0], make().values[1])


def test_axes_are_cast_and_the_order_stays_an_index():
    array = make_separable().permute(orders(True)).to(torch.float64)
    assert array.axes.dtype == torch.float64
    assert array.order.dtype == torch.int64


@pytest.mark.parametrize(
    "wrong", [{"axes": torch.zeros(7, P + 1)}, {"axes": torch.zeros(8, P)}, {"order": torch.arange(M + 1)}]
)
def test_axes_and_orders_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="fit"):
        replace(make(), **wrong)


def test_to_casts_values_and_positions_and_leaves_the_mask_bool():
    array = make().to(torch.float64)
    assert (array.values.dtype, array.positions.dtype, array.mask.dtype) == (torch.float64, torch.float64, torch.bool)


@pytest.mark.parametrize(
    ("positions", "grid", "mask"),
    [
        ((M + 1, P), None, None),
        ((B, M - 1, P), None, None),
        ((B + 1, M, P), None, None),
        ((1, M, P), None, None),
        ((P,), None, None),
        ((M, P), (3, 5), None),
        ((M, P), None, (B, M + 1)),
        ((M, P), None, (M,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(positions, grid, mask):
    with pytest.raises(ValueError, match=r"fit|grid"):
        ByteArray(
            torch.zeros(B, M, C),
            torch.zeros(positions),
            grid,
            None if mask is None else torch.ones(mask, dtype=torch.bool),
        )


def make_spec() -> DataSpec:
    modalities = {"image": ModalitySpec(3, 18, 16, (4, 4), 2), "points": ModalitySpec(3, 27, 100, None, 3)}
    return DataSpec(modalities, "single_label", ("cat", "dog"))


def test_spec_as_dict_is_plain_yaml_and_json():
    plain = make_spec().to_dict()
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    assert json.loads(json.dumps(plain)) == plain
    assert plain["modalities"]["image"]["grid"] == [4, 4]
    assert plain["modalities"]["points"]["grid"] is None
    assert plain["classes"] == ["cat", "dog"]


def test_example_inputs_have_the_shapes_of_the_spec():
    spec = make_spec()
    for device in ("cpu", "meta"):
        inputs = spec.example_inputs(5, device)
        for name, modality in spec.modalities.items():
            assert inputs[name].values.shape == (5, modality.elements, modality.channels)
            assert inputs[name].positions.shape == (modality.elements, modality.position_channels)
            assert inputs[name].grid == modality.grid


def test_a_spec_of_unknown_task_or_kind_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"unknown task 'ranking': use one of single_label, .*regression"):
        DataSpec({}, "ranking", ("a", "b"))
    with pytest.raises(UserError, match=r"unknown modality kind 'smell': use one of image, "):
        ModalitySpec(1, 1, 1, None, 1, kind="smell")


def test_stored_modalities_are_compared_by_the_fields_that_they_have():
    audio = ModalitySpec(128, 65, 80, (80,), 1, kind="audio", rate=8000)
    spec = DataSpec({"audio": audio}, "single_label", ("a", "b"))
    stored = spec.to_dict()["modalities"]
    assert spec.has_modalities(stored)
    old = {"audio": {name: value for name, value in stored["audio"].items() if name not in ("kind", "rate")}}
    assert spec.has_modalities(old)
    for change in ({"rate": 16_000}, {"kind": "series"}, {"elements": 81}):
        assert not spec.has_modalities({"audio": {**stored["audio"], **change}})
    assert not spec.has_modalities({"audio": stored["audio"], "image": stored["audio"]})
    assert not spec.has_modalities({"sound": stored["audio"]})
