"""The lambda layer against an explicit loop over queries by the paper's formula, and what must not change its output."""

from itertools import product

import pytest
import torch
from timm.layers.lambda_layer import LambdaLayer as TimmLambdaLayer
from torch import Tensor, nn

from datamodules import UserError
from src.backbones import LambdaLayer


def build(dim: int = 6, dim_out: int = 8, **options) -> LambdaLayer:
    """A float64 layer whose BatchNorms, running statistics included, do not leave their input as it is."""
    layer = LambdaLayer(dim, dim_out, **{"key_depth": 3, "heads": 2, **options}).double()
    for norm in (layer.norm_queries, layer.norm_values):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return layer


def batch_norm(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """x: (B, C, m)."""
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean(dim=(0, 2)), x.var(dim=(0, 2), correction=0)
    x = (x - mean[:, None]) / (variance[:, None] + norm.eps).sqrt()
    return x * norm.weight[:, None] + norm.bias[:, None]


def by_the_formula(layer: LambdaLayer, queries: Tensor, context: Tensor) -> Tensor:
    """Section 3: lambda_n = sum_m (softmax(K)_m + E_nm) V_m', y_n = lambda_n' q_n, summed over the intra-depth; heads
    share lambda and are concatenated."""
    k, h, u, v = layer.key_depth, layer.heads, layer.intra_depth, layer.value_depth
    b, _, *grid = queries.shape
    x, c = queries.flatten(2), context.flatten(2)
    q = batch_norm(layer.norm_queries, layer.to_queries.weight @ x)
    values = batch_norm(layer.norm_values, layer.to_values.weight @ c)
    keys = (layer.to_keys.weight @ c).softmax(dim=2)  # over the context
    places = list(product(*map(range, grid)))
    y = torch.zeros(b, h * v, x.shape[2], dtype=x.dtype)
    for example, n in product(range(b), range(x.shape[2])):
        summary = torch.zeros(k, v, dtype=x.dtype)
        for m, i in product(range(c.shape[2]), range(u)):
            key = keys[example, i::u, m]  # channel order of keys and values: depth, then intra-depth
            if layer.grid is not None:
                offset = [p - o + most - 1 for p, o, most in zip(places[m], places[n], layer.grid, strict=True)]
                key = key + layer.embeddings[(*offset, slice(None), i)]
            summary = summary + torch.outer(key, values[example, i::u, m])
        for head in range(h):
            y[example, head * v : (head + 1) * v, n] = summary.T @ q[example, head * k : (head + 1) * k, n]
    return y.reshape(b, h * v, *grid)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("grid", "intra_depth"), [((7,), 1), ((7,), 2), ((3, 4), 1), ((4, 2), 3), ((2, 3, 2), 1), (None, 1), (None, 2)]
)
def test_output_equals_the_papers_formula_query_by_query(grid, intra_depth, training):
    layer = build(grid=grid, intra_depth=intra_depth).train(training)
    x = torch.randn(2, 6, *(grid or (5,)), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_the_formula(layer, x, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("grid", [(3, 4), None])
def test_a_separate_context_is_what_is_summarised(grid):
    layer = build(grid=grid).eval()
    x, context = torch.randn(2, 2, 6, *(grid or (5,)), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, context), by_the_formula(layer, x, context), rtol=1e-10, atol=1e-10)


def test_content_only_context_may_have_another_length_than_the_queries():
    layer = build().eval()
    x, context = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(2, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, context), by_the_formula(layer, x, context), rtol=1e-10, atol=1e-10)


def test_output_and_gradient_equal_timms_layer():
    theirs = TimmLambdaLayer(12, feat_size=(3, 5), num_heads=2, dim_head=4, r=None).double()
    ours = LambdaLayer(12, 12, key_depth=theirs.dim_qk, heads=2, grid=(3, 5)).double()
    with torch.no_grad():
        weights = (ours.to_queries.weight, ours.to_keys.weight, ours.to_values.weight)
        theirs.qkv.weight.copy_(torch.cat(weights)[..., None, None])
        theirs.pos_emb.copy_(ours.embeddings.squeeze(-1))
    x = torch.randn(2, 12, 3, 5, dtype=torch.float64, requires_grad=True)
    outputs = ours(x), theirs(x)
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_parameter_count_is_the_papers():
    assert sum(p.numel() for p in LambdaLayer(256, 256, grid=(16, 16)).parameters()) == 52_496


@pytest.mark.parametrize(
    ("grid", "smaller"), [((9,), (4,)), ((5, 4), (3, 2)), ((5, 4), (5, 1)), ((3, 4, 3), (2, 3, 1))]
)
def test_a_smaller_grid_uses_the_centre_of_the_table(grid, smaller):
    large, small = build(grid=grid).eval(), build(grid=smaller).eval()
    centre = tuple(slice(most - length, most + length - 1) for most, length in zip(grid, smaller, strict=True))
    small.load_state_dict({**large.state_dict(), "embeddings": large.embeddings[centre]})
    x = torch.randn(2, 6, *smaller, dtype=torch.float64)
    torch.testing.assert_close(large(x), small(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [(4, 4), (3, 5), (3,), (3, 4, 1)])
def test_a_grid_that_the_table_does_not_cover_raises_user_error(given):
    layer = build(grid=(3, 4))
    with pytest.raises(UserError, match=r"\(3, 4\)"):
        layer(torch.randn(2, 6, *given, dtype=torch.float64))


def test_content_only_output_does_not_depend_on_the_order_of_the_context():
    layer = build().eval()
    x, context = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(2, 6, 9, dtype=torch.float64)
    torch.testing.assert_close(layer(x, context[..., torch.randperm(9)]), layer(x, context), rtol=1e-12, atol=1e-12)


def test_with_positions_the_order_of_the_context_matters():
    layer = build(grid=(9,)).eval()
    x, context = torch.randn(2, 2, 6, 9, dtype=torch.float64)
    assert not torch.allclose(layer(x, context.flip(-1)), layer(x, context))


def test_a_shifted_picture_gives_the_shifted_position_part():
    layer = build(grid=(8,), heads=1).eval()
    nn.init.zeros_(layer.norm_queries.weight)  # the same query everywhere
    nn.init.zeros_(layer.norm_values.bias)
    layer.norm_values.running_mean.zero_()
    x = torch.zeros(1, 6, 8, dtype=torch.float64)
    x[..., 2] = torch.randn(6)
    content = layer(x) - layer(torch.roll(x, 1, dims=-1)).roll(-1, dims=-1)
    # away from the border, where rolling wraps around
    torch.testing.assert_close(content[..., :7], torch.zeros_like(content[..., :7]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("positions", [False, True])
def test_masked_context_equals_a_shorter_one(positions):
    layer = build(grid=(9,) if positions else None).eval()
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    mask = (torch.arange(9) < 5).expand(2, -1)
    long, short = layer(x, mask=mask)[..., :5], layer(x[..., :5])
    torch.testing.assert_close(long, short, rtol=1e-12, atol=1e-12)


def test_a_context_that_is_masked_whole_gives_zeros_and_finite_gradients():
    layer = build(grid=(9,)).eval()
    mask = torch.tensor([True, False])[:, None].expand(-1, 9)
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    y = layer(x, mask=mask)
    y.sum().backward()
    assert y[1].eq(0).all()
    assert y[0].ne(0).any()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_dim_out_that_does_not_divide_by_heads_raises_user_error():
    with pytest.raises(UserError, match="dim_out 10 does not divide by heads 4"):
        LambdaLayer(8, 10, heads=4)


def test_lambdas_stay_finite_under_bfloat16_autocast():
    layer = LambdaLayer(8, 12, heads=2, grid=(4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(1e3 * torch.randn(2, 8, 4, 4))
    y.float().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
