"""Position lambdas, in both orders, against one einsum over all embeddings."""

from math import prod

import pytest
import torch
from torch import Tensor

from src.backbones.lambda_networks import lambdas_first
from src.backbones.lambda_networks.position_lambda import apply_position_lambdas
from src.backbones.lambda_networks.scores_first import Tiling, apply_scores_first, sum_diagonals, tile_shape

CASES = [
    ((7,), (7,), (13,)),
    ((7,), (5,), (3,)),
    ((4, 5), (4, 5), (7, 9)),
    ((4, 5), (4, 5), (3, 5)),
    ((5, 4), (3, 6), (9, 11)),
    ((2, 3, 4), (2, 3, 4), (3, 5, 3)),
]


def embeddings_of(table: Tensor, grid: tuple[int, ...], context: tuple[int, ...]) -> Tensor:
    """(k, u, *r) to those of every pair of query and context element (k, u, n, m), zero beyond the table."""
    places = [torch.cartesian_prod(*map(torch.arange, g)).view(prod(g), len(g)) for g in (grid, context)]
    offsets = places[1][None] - places[0][:, None] + torch.tensor(table.shape[2:]) // 2  # (n, m, axes)
    inside = ((offsets >= 0) & (offsets < torch.tensor(table.shape[2:]))).all(-1)
    offsets = offsets.where(inside[..., None], 0)
    return table[(..., *offsets.unbind(-1))] * inside


def textbook(queries: Tensor, table: Tensor, values: Tensor) -> Tensor:
    grid = queries.shape[3:]
    embeddings = embeddings_of(table, tuple(grid), tuple(values.shape[3:]))
    return torch.einsum("bhkn,kunm,bvum->bhvn", queries.flatten(3), embeddings, values.flatten(3)).unflatten(3, grid)


def made(grid, context, reach, intra_depth=1) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 3, 4, *grid), (4, intra_depth, *reach), (2, 5, intra_depth, *context)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("most", [1, 200, 10**9])
@pytest.mark.parametrize("intra_depth", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_tiles_of_any_size_equal_the_textbook_with_all_gradients(case, intra_depth, most):
    given = made(*case, intra_depth)
    tiling = Tiling(*case, tile_shape(*case, 3 * intra_depth, most))
    assert_equal(apply_scores_first(*given, tiling), textbook(*given), given)


@pytest.mark.parametrize("most", [1, 200, 10**9])
@pytest.mark.parametrize("intra_depth", [1, 2])
@pytest.mark.parametrize("case", [case for case in CASES if len(case[0]) == 2])
def test_frequencies_of_any_number_of_keys_equal_the_textbook_with_all_gradients(case, intra_depth, most, monkeypatch):
    monkeypatch.setattr(lambdas_first, "MAX_LAMBDAS", most)
    given = made(*case, intra_depth)
    assert_equal(lambdas_first.apply_lambdas_first(*given), textbook(*given), given)


def assert_equal(found: Tensor, wanted: Tensor, given: list[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    for ours, theirs in zip(*(torch.autograd.grad((y * weights).sum(), given) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


def test_the_cheaper_order_is_chosen(monkeypatch):
    chosen = []
    monkeypatch.setattr(lambdas_first, "apply_lambdas_first", lambda *given: chosen.append(given[0].shape[-1]))
    for side in (4, 64):
        apply_position_lambdas(*made((side, side), (side, side), (2 * side - 1, 2 * side - 1)))
    assert chosen == [64]


@pytest.mark.parametrize(("grid", "context", "reach"), CASES)
def test_tiles_cover_every_query_once_and_all_context_in_reach(grid, context, reach):
    seen = torch.zeros(*grid, *context, dtype=torch.long)
    for of_queries, of_context, _ in Tiling(grid, context, reach, tile_shape(grid, context, reach, 1, 30)):
        seen[(*of_queries[1:], *of_context[1:])] += 1
    seen = seen.flip(*range(len(grid), seen.dim()))  # boxes of the context count from its end
    places = embeddings_of(torch.ones(1, 1, *reach), grid, context)[0, 0].view_as(seen)
    assert seen.max() == 1
    assert (seen[places > 0] == 1).all()


def test_sums_along_diagonals():
    x = torch.arange(6.0).view(2, 3)
    assert sum_diagonals(x).tolist() == [0.0, 1.0 + 3.0, 2.0 + 4.0, 5.0]


def test_nothing_of_the_scores_size_is_kept_for_the_backward_pass():
    queries, table, values = made((16, 16), (16, 16), (31, 31))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        apply_position_lambdas(queries, table, values)
    assert max(kept) < 3 * max(t.numel() for t in (queries, table, values))
