"""From compact tensors to byte arrays: patches, normalising, shared positions."""

import itertools

import pytest
import torch

from datamodules import Flatten, GridModality
from datamodules.core.flatten import random_orders

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


@pytest.mark.parametrize("permutation", ["none", "fixed", "per_example"])
def test_a_backbone_learns_that_positions_are_a_sum_over_the_axes_and_how_to_undo_a_permutation(permutation):
    raw = torch.randint(0, 256, (2, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, modality = (GridModality((6, 8), 1, bands=2, patch=(1, 2)) for _ in range(2))
    flatten = Flatten({"image": modality}, permutation)
    compact = {
        "image": raw,
        "target": None,
        "key": ["a", "b"],
        "weight": torch.ones(2),
        "order_seed": torch.tensor([3, 4]),
    }
    array = flatten(compact).inputs["image"].restore()
    assert torch.equal(array.values, plain(raw).values)
    lead, trail = array.axes.split(array.grid)
    assert torch.equal(array.positions, (lead[:, None] + trail).flatten(0, 1))


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


MASK = (1 << 64) - 1


def splitmix64(bits: int) -> int:
    """The output function of splitmix64, in Python's own integers."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & MASK
    return bits ^ (bits >> 31)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 1234567890123456789])
def test_random_order_is_that_of_splitmix64_of_seed_and_element(seed):
    base = splitmix64(seed)
    numbers = [splitmix64(base + place * 0x9E3779B97F4A7C15 & MASK) for place in range(1, 51)]
    signed = [number - (1 << 64) if number >> 63 else number for number in numbers]
    expected = sorted(range(50), key=signed.__getitem__)
    assert random_orders(torch.tensor(seed), 50).tolist() == expected
    assert random_orders(torch.tensor([7, seed]), 50)[1].tolist() == expected


def permutable(permutation: str, seed: int = 0) -> Flatten:
    return Flatten({"image": GridModality((4, 5), 3, bands=2)}, permutation, seed)


def compact_pictures(order_seeds: list[int]) -> dict:
    batch = len(order_seeds)
    pixels = torch.arange(20 * 3, dtype=torch.uint8).reshape(1, 4, 5, 3).expand(batch, -1, -1, -1)
    rest = {"target": torch.zeros(batch), "key": [str(n) for n in range(batch)], "weight": torch.ones(batch)}
    return {"image": pixels, "order_seed": torch.tensor(order_seeds), "bad": [], **rest}


def rows(values: torch.Tensor) -> list:
    return sorted(map(tuple, values.tolist()))


@pytest.mark.parametrize("permutation", ["fixed", "per_example"])
def test_permuted_pixels_keep_their_positions(permutation):
    plain = permutable("none")(compact_pictures([3, 3, 4])).inputs["image"].concat()
    array = permutable(permutation)(compact_pictures([3, 3, 4])).inputs["image"]
    assert array.grid == (4, 5)
    for before, after in zip(plain, array.concat(), strict=True):
        assert not torch.equal(before, after)
        assert rows(before) == rows(after)


def test_fixed_permutation_is_one_for_all_and_shares_its_positions():
    compact = compact_pictures([3, 4, 5])
    array = permutable("fixed", 1)(compact).inputs["image"]
    assert array.positions.dim() == 2
    assert (array.values == array.values[:1]).all()
    assert torch.equal(array.values, permutable("fixed", 1)(compact).inputs["image"].values)
    assert not torch.equal(array.values, permutable("fixed", 2)(compact).inputs["image"].values)


def test_permutation_per_example_is_that_of_its_order_seed():
    values = permutable("per_example")(compact_pictures([3, 4, 3])).inputs["image"].values
    assert torch.equal(values[0], values[2])
    assert not torch.equal(values[0], values[1])
