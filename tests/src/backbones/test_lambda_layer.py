"""The lambda layer against an explicit loop over queries by the paper's formula, and what must not change its output."""

from itertools import product

import pytest
import torch
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
    q = batch_norm(layer.norm_queries, layer.to_queries @ x)
    values = batch_norm(layer.norm_values, layer.to_values @ c)
    keys = (layer.to_keys @ c).softmax(dim=2)  # over the context
    places, context_places = (list(product(*map(range, array.shape[2:]))) for array in (queries, context))
    y = torch.zeros(b, h * v, x.shape[2], dtype=x.dtype)
    for example, n in product(range(b), range(x.shape[2])):
        summary = torch.zeros(k, v, dtype=x.dtype)
        for m, i in product(range(c.shape[2]), range(u)):
            key = keys[example, i::u, m]  # channel order of keys and values: depth, then intra-depth
            if layer.embeddings is not None:
                table = layer.embeddings[:, i]
                offset = [p - o + r // 2 for p, o, r in zip(context_places[m], places[n], table.shape[1:], strict=True)]
                if all(0 <= o < r for o, r in zip(offset, table.shape[1:], strict=True)):
                    key = key + table[(slice(None), *offset)]
            summary = summary + torch.outer(key, values[example, i::u, m])
        for head in range(h):
            y[example, head * v : (head + 1) * v, n] = summary.T @ q[example, head * k : (head + 1) * k, n]
    return y.reshape(b, h * v, *grid)


SHAPES = [
    ((7,), {"grid": (7,)}),
    ((7,), {"grid": (7,), "intra_depth": 2}),
    ((7,), {"scope": (3,)}),
    ((3, 4), {"grid": (3, 4)}),
    ((4, 2), {"grid": (4, 2), "intra_depth": 3}),
    ((5, 4), {"scope": (3, 5)}),
    ((2, 3, 2), {"grid": (2, 3, 2)}),
    ((2, 4, 3), {"scope": (1, 3, 3), "intra_depth": 2}),
    ((5,), {}),
    ((5,), {"intra_depth": 2}),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("grid", "options"), SHAPES)
def test_output_equals_the_papers_formula_query_by_query(grid, options, training):
    layer = build(**options).train(training)
    x = torch.randn(2, 6, *grid, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_the_formula(layer, x, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "grid", "context_grid"),
    [
        ({"grid": (5, 6)}, (3, 4), (3, 4)),
        ({"grid": (5, 6)}, (3, 4), (5, 2)),
        ({"scope": (3, 3)}, (3, 4), (5, 2)),
        ({}, (4,), (9,)),
    ],
)
def test_a_separate_context_of_any_grid_is_what_is_summarised(options, grid, context_grid):
    layer = build(context_dim=7, **options).eval()
    x, context = (torch.randn(2, c, *g, dtype=torch.float64) for c, g in ((6, grid), (7, context_grid)))
    with torch.no_grad():
        torch.testing.assert_close(layer(x, context), by_the_formula(layer, x, context), rtol=1e-12, atol=1e-12)


def test_parameter_counts_are_the_papers():
    assert sum(p.numel() for p in LambdaLayer(256, 256, grid=(16, 16)).parameters()) == 52_496
    assert sum(p.numel() for p in LambdaLayer(256, 256, scope=(23, 23)).parameters()) == 45_584


@pytest.mark.parametrize(
    ("grid", "smaller"), [((9,), (4,)), ((5, 4), (3, 2)), ((5, 4), (5, 1)), ((3, 4, 3), (2, 3, 1))]
)
def test_a_smaller_grid_uses_the_centre_of_the_table(grid, smaller):
    large, small = build(grid=grid).eval(), build(grid=smaller).eval()
    centre = tuple(slice(most - length, most + length - 1) for most, length in zip(grid, smaller, strict=True))
    small.load_state_dict({**large.state_dict(), "embeddings": large.embeddings[(..., *centre)]})
    x = torch.randn(2, 6, *smaller, dtype=torch.float64)
    torch.testing.assert_close(large(x), small(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [(4, 4), (3, 5), (3,), (3, 4, 1)])
def test_a_grid_that_the_table_does_not_cover_raises_user_error(given):
    layer = build(grid=(3, 4))
    with pytest.raises(UserError, match=r"\(3, 4\)"):
        layer(torch.randn(2, 6, *given, dtype=torch.float64))


def test_layers_may_share_embeddings_and_their_gradients_add_up():
    first = build(grid=(3, 4))
    second = build(grid=(3, 4), embeddings=first.embeddings)
    assert len(set(nn.ModuleList([first, second]).parameters())) == 2 * len(list(first.parameters())) - 1
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    apart = [torch.autograd.grad(layer(x).square().sum(), first.embeddings)[0] for layer in (first, second)]
    (first(x).square().sum() + second(x).square().sum()).backward()
    torch.testing.assert_close(first.embeddings.grad, sum(apart), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"grid": (3,), "scope": (3,)}, {"scope": (4,)}, {"embeddings": nn.Parameter(torch.zeros(3, 1, 5))}]
)
def test_options_that_contradict_each_other_raise_user_error(options):
    with pytest.raises(UserError, match=r"scope|embeddings"):
        build(**options)


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


@pytest.mark.parametrize("options", [{"grid": (4, 3)}, {"scope": (3, 3)}, {}])
def test_the_memory_format_of_the_input_changes_nothing_and_the_output_has_its_channels_last(options):
    layer = build(**options)
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    first, last = (layer(x.to(memory_format=f)) for f in (torch.contiguous_format, torch.channels_last))
    torch.testing.assert_close(first, last, rtol=1e-12, atol=1e-12)
    assert first.is_contiguous(memory_format=torch.channels_last)


def padded(x: Tensor, mask: Tensor, filling: float) -> Tensor:
    return x.masked_fill(~mask[:, None], filling)


@pytest.mark.parametrize("filling", [-7.0, 1e6, float("nan")])
@pytest.mark.parametrize("options", [{"grid": (4, 3)}, {"scope": (3, 3)}, {}])
def test_what_padding_holds_changes_no_bit_in_training(options, filling):
    x = torch.randn(3, 6, 4, 3, dtype=torch.float64)
    mask = torch.rand(3, 4, 3) < 0.6
    found = []
    for value in (0.0, filling):
        torch.manual_seed(0)
        layer = build(**options).train()
        y = layer(padded(x, mask, value), mask=mask).movedim(1, -1)[mask]
        found.append(
            [y, *torch.autograd.grad(y.square().sum(), layer.parameters()), *(b.clone() for b in layer.buffers())]
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_statistics_of_a_masked_batch_are_those_of_its_real_elements():
    torch.manual_seed(0)
    long, short = build(grid=(9,)), build(grid=(9,))
    short.load_state_dict(long.state_dict())
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    mask = (torch.arange(9) < 5).expand(2, -1)
    outputs = long(x, mask=mask)[..., :5], short(x[..., :5])
    gradients = [
        torch.autograd.grad(y.square().sum(), layer.parameters())
        for y, layer in zip(outputs, (long, short), strict=True)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(long.state_dict(), short.state_dict(), rtol=1e-12, atol=1e-12)


def test_a_batch_that_is_masked_whole_leaves_the_statistics():
    layer = build(grid=(9,))
    before = [norm.running_mean.clone() for norm in (layer.norm_queries, layer.norm_values)]
    y = layer(torch.randn(2, 6, 9, dtype=torch.float64), mask=torch.zeros(2, 9, dtype=torch.bool))
    assert y.eq(0).all()
    assert torch.equal(before[0], layer.norm_queries.running_mean)
    assert torch.equal(before[1], layer.norm_values.running_mean)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [{"grid": (4, 3)}, {"scope": (3, 3)}, {}])
def test_a_compiled_layer_is_one_graph_with_the_same_gradients(options, masked):
    layer = build(**options)
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 4, 3) < 0.6 if masked else None
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    found, wanted = (torch.autograd.grad(f(x, mask=mask).square().sum(), x)[0] for f in (compiled, layer))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_dim_out_that_does_not_divide_by_heads_raises_user_error():
    with pytest.raises(UserError, match="dim_out 10, which is not divisible by heads 4"):
        LambdaLayer(8, 10, heads=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{"grid": (56, 56)}, {"scope": (23, 23)}])
def test_half_precision_is_finite_at_56x56_and_near_float32(options, dtype):
    torch.manual_seed(0)
    layer = LambdaLayer(8, 8, key_depth=8, heads=2, **options)
    x = torch.randn(1, 8, 56, 56)
    found = []
    for enabled in (True, False):
        layer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            y = layer(x)
        y.float().square().mean().backward()
        found.append([y.detach().float()] + [p.grad.clone() for p in layer.parameters()])
    for half, single in zip(*found, strict=True):
        assert half.isfinite().all()
        assert (half - single).abs().max() < 16 * torch.finfo(dtype).eps * single.abs().max()
