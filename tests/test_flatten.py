"""From compact tensors to byte arrays: patches, normalising, shared positions."""

import itertools

import pytest
import torch

from datamodules import Flatten, GridModality

SHAPES = [((12,), (3,), 1), ((6, 8), (2, 4), 3), ((6, 8), (1, 1), 2), ((4, 6, 8), (2, 3, 4), 3)]


def patches_by_loops(raw: torch.Tensor, shape: tuple[int, ...], patch: tuple[int, ...]) -> torch.Tensor:
    """(*shape, C) to (M, C'): elements row-major, within each its cells row-major, channels last."""
    elements = []
    for corner in itertools.product(*[range(0, s, p) for s, p in zip(shape, patch, strict=True)]):
        cells = []
        for inside in itertools.product(*[range(p) for p in patch]):
            cell = tuple(c + i for c, i in zip(corner, inside, strict=True))
            cells += raw[cell].tolist()
        elements.append(cells)
    return torch.tensor(elements)


@pytest.mark.parametrize(("shape", "patch", "channels"), SHAPES)
def test_patches_equal_an_explicit_loop(shape, patch, channels):
    raw = torch.randint(0, 256, (2, *shape, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    modality = GridModality(shape, channels, bands=2, patch=patch)
    array = modality(raw)
    assert array.values.shape == (2, modality.spec.elements, modality.spec.channels)
    assert array.grid == modality.spec.grid
    for example in range(2):
        assert torch.equal(array.values[example], patches_by_loops(raw[example], shape, patch).float())


def test_one_channel_may_be_left_out():
    raw = torch.randint(0, 256, (2, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    modality = GridModality((6, 8), 1, bands=2, patch=(3, 2))
    assert torch.equal(modality(raw).values, modality(raw[..., None]).values)


def test_raw_values_are_normalised_channel_by_channel():
    raw = torch.full((1, 4, 3), 10, dtype=torch.int16)
    array = GridModality((4,), 3, bands=1, mean=(0.0, 10.0, 20.0), std=(1.0, 1.0, 5.0))(raw)
    assert array.values[0, 0].tolist() == [10.0, 0.0, -2.0]


def test_positions_are_shared_and_never_copied():
    modality = GridModality((4, 4), 1, bands=2)
    first, second = (modality(torch.zeros(batch, 4, 4, dtype=torch.uint8)) for batch in (2, 5))
    assert first.positions.shape == (16, modality.spec.position_channels)
    assert first.positions.data_ptr() == second.positions.data_ptr() == modality.positions.data_ptr()


@pytest.mark.parametrize("wrong", [(2, 4, 5), (2, 4, 4, 2), (2, 16), (4, 4), (2, 4, 4, 1, 1)])
def test_wrong_shape_is_refused_and_says_what_was_expected(wrong):
    with pytest.raises(ValueError, match=r"expected \(B, 4, 4, 1\), got"):
        GridModality((4, 4), 1, bands=2)(torch.zeros(wrong))


@pytest.mark.parametrize("patch", [(3, 1), (2,), (2, 2, 2)])
def test_patches_that_do_not_divide_the_shape_are_refused(patch):
    with pytest.raises(ValueError, match="does not divide into patches"):
        GridModality((4, 4), 1, bands=2, patch=patch)


def test_flatten_keeps_target_keys_and_weight_and_saves_nothing():
    flatten = Flatten({"a": GridModality((4,), 1, bands=2), "b": GridModality((2, 2), 3, bands=1)})
    compact = {
        "a": torch.zeros(2, 4, dtype=torch.int16),
        "b": torch.zeros(2, 2, 2, 3, dtype=torch.uint8),
        "target": torch.tensor([3, 4]),
        "key": ["x", "y"],
        "weight": torch.tensor([1.0, 0.0]),
        "bad": [],
    }
    batch = flatten(compact)
    assert list(batch.inputs) == ["a", "b"]
    assert batch.keys == ["x", "y"]
    assert torch.equal(batch.target, compact["target"])
    assert torch.equal(batch.weight, compact["weight"])
    assert not flatten.state_dict()  # positions are computed, so checkpoints do not hold them
