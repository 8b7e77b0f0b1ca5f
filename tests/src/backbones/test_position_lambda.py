"""Position lambdas, in both orders, against one einsum over all embeddings."""

from math import prod

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from src.backbones.lambda_networks import lambdas_first, position_lambda, scores_first
from src.backbones.lambda_networks.position_lambda import defined_flops, executed_flops, position_lambdas
from src.backbones.lambda_networks.scores_first import Tiling, sum_diagonals, tile_shape

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
    grid, context = queries.shape[1:-2], values.shape[1:-2]
    embeddings = embeddings_of(table, tuple(grid), tuple(context))
    y = torch.einsum("bnhk,kunm,bmvu->bnhv", queries.flatten(1, -3), embeddings, values.flatten(1, -3))
    return y.unflatten(1, grid)


def made(grid, context, reach, intra_depth=1) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, *grid, 3, 4), (4, intra_depth, *reach), (2, *context, 5, intra_depth)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("most", [1, 200, 10**9])
@pytest.mark.parametrize("intra_depth", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_tiles_of_any_size_equal_the_textbook_with_all_gradients(case, intra_depth, most):
    tiling = Tiling(*case, tile_shape(*case, 3 * intra_depth, most))
    assert_equal(scores_first, tiling, made(*case, intra_depth))


@pytest.mark.parametrize("most", [1, 200, 10**9])
@pytest.mark.parametrize("intra_depth", [1, 2])
@pytest.mark.parametrize("block", [1, 2, 3, 5])
@pytest.mark.parametrize("case", [case for case in CASES if len(case[0]) == 2])
def test_fourier_transforms_of_any_block_equal_the_textbook_with_all_gradients(
    case, block, intra_depth, most, monkeypatch
):
    monkeypatch.setattr(lambdas_first, "MAX_LAMBDAS", most)
    assert_equal(lambdas_first, min(block, case[0][0]), made(*case, intra_depth))


@pytest.mark.parametrize("case", CASES)
def test_the_operator_equals_the_textbook_with_all_gradients(case):
    given = made(*case)
    wanted = textbook(*given)
    weights = torch.randn_like(wanted)
    found = position_lambdas(*given)
    gradients = torch.autograd.grad((found * weights).sum(), given)
    assert_close([found, *gradients], [wanted, *torch.autograd.grad((wanted * weights).sum(), given)])


@pytest.mark.parametrize("side", [4, 40])
def test_the_operator_keeps_the_contract_of_torch(side):
    torch.library.opcheck(position_lambdas, made((side, side), (side, side), (7, 7)))


def assert_equal(order, plan, given: list[Tensor]) -> None:
    wanted = textbook(*given)
    weights = torch.randn_like(wanted)
    bare = [x.detach() for x in given]
    found = [order.forward(plan, *bare), *order.backward(plan, weights, *bare)]
    assert_close(found, [wanted, *torch.autograd.grad((wanted * weights).sum(), given)])


def assert_close(found, wanted) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_cheaper_order_is_chosen():
    plans = [
        position_lambda.plan_for(*made((side, side), (side, side), (2 * side - 1, 2 * side - 1))) for side in (4, 64)
    ]
    assert isinstance(plans[0], Tiling)
    assert plans[1] == 64


@pytest.mark.parametrize(("grid", "context", "reach"), CASES)
def test_tiles_cover_every_query_once_and_all_context_in_reach(grid, context, reach):
    seen = torch.zeros(*grid, *context, dtype=torch.long)
    for of_queries, of_context, _ in Tiling(grid, context, reach, tile_shape(grid, context, reach, 1, 30)):
        seen[(*of_queries[1:], *of_context[2:])] += 1
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
        position_lambdas(queries, table, values)
    assert max(kept) < 3 * max(t.numel() for t in (queries, table, values))


def flops(queries, table, values) -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        position_lambdas(*(torch.empty(shape) for shape in (queries, table, values)))
    return counter.get_total_flops()


def test_flops_are_those_of_the_pairs_in_scope_and_grow_with_it():
    found = []
    for r in (1, 3, 7, 23, 55):
        pairs = int(embeddings_of(torch.ones(1, 1, r, r), (10, 12), (10, 12)).sum())
        found.append(flops((2, 10, 12, 3, 4), (4, 2, r, r), (2, 10, 12, 5, 2)))
        assert found[-1] == 2 * 2 * 4 * 5 * (2 * pairs + 3 * 120)
    assert found == sorted(found)
    assert found[-1] == 2 * 2 * 4 * 5 * (2 * 120 * 120 + 3 * 120)  # all pairs


@pytest.mark.parametrize("order", [scores_first, lambdas_first])
@pytest.mark.parametrize("r", [3, 15])
def test_executed_multiply_adds_are_those_that_run(order, r):
    given = [x.detach() for x in made((12, 10), (12, 10), (r, r))]
    shapes = [tuple(x.shape) for x in given]
    if order is scores_first:
        plan = Tiling((12, 10), (12, 10), (r, r), (4, 5))
        expected = scores_first.multiply_adds(shapes[0], shapes[2], plan)
    else:
        plan, expected = 6, lambdas_first.multiply_adds(*shapes, 6)
    with FlopCounterMode(display=False) as counter:
        order.forward(plan, *given)
    assert counter.get_total_flops() == 2 * expected


@pytest.mark.parametrize("side", [7, 14, 28, 56])
def test_executed_operations_never_fall_with_the_scope_nor_exceed_those_of_all_pairs(side):
    found = [
        executed_flops((2, side, side, 4, 16), (16, 1, r, r), (2, side, side, 16, 1)) for r in range(3, 2 * side, 4)
    ]
    assert found == sorted(found)
    assert found[-1] <= defined_flops(
        (2, side, side, 4, 16), (16, 1, 2 * side - 1, 2 * side - 1), (2, side, side, 16, 1)
    )
