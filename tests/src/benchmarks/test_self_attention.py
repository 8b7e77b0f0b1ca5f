"""The self-attention layers of the layer table against plain loops over what each query attends to."""

import pytest
import torch

from datamodules import UserError
from src.benchmarks.self_attention import AxialAttention, GlobalAttention, LocalAttention


def test_global_attention_equals_attention_with_a_full_table_of_scores():
    torch.manual_seed(0)
    layer = GlobalAttention(6, 8, (4, 5), heads=2).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    query, key, value = (t.flatten(3) for t in layer.split(x))  # (B, h, d, n)
    rows, columns = (p.flatten() for p in torch.meshgrid(torch.arange(3), torch.arange(5), indexing="ij"))
    embeddings = (
        layer.relative[0][rows[None] - rows[:, None] + 3] + layer.relative[1][columns[None] - columns[:, None] + 4]
    )
    scores = torch.einsum("bhdn,bhdm->bhnm", query, key) + torch.einsum("bhdn,nmd->bhnm", query, embeddings)
    wanted = torch.einsum("bhnm,bhdm->bhdn", scores.softmax(-1), value).reshape(2, 8, 3, 5)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)


def seen_from(layer: torch.nn.Module, place: tuple[int, int]) -> torch.Tensor:
    """Which elements of a 9x9 grid the output at a place depends on."""
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    layer(x)[0, :, place[0], place[1]].sum().backward()
    return x.grad[0].ne(0).any(0)


def test_what_each_layer_sees():
    torch.manual_seed(0)
    assert seen_from(GlobalAttention(8, 8, (9, 9), heads=2), (4, 4)).all()
    assert seen_from(AxialAttention(8, 8, (9, 9), heads=2), (4, 4)).all()
    local = seen_from(LocalAttention(8, 8, 7, heads=2), (4, 4))
    assert local[1:8, 1:8].all()
    assert local.sum() == 49


def test_local_attention_that_reaches_everything_weighs_by_content_and_place():
    torch.manual_seed(0)
    layer = LocalAttention(4, 4, 3, heads=1).double()
    x = torch.randn(1, 4, 1, 2, dtype=torch.float64)
    query, key, value = (t[0, 0] for t in layer.split(x))  # (d, 1, 2)
    keys, values = torch.zeros(4, 9, dtype=torch.float64), torch.zeros(4, 9, dtype=torch.float64)
    keys[:, 4:6], values[:, 4:6] = (
        key[:, 0],
        value[:, 0],
    )  # around the left element: itself in the middle, the other beside
    weights = (query[:, 0, 0] @ (keys + layer.relative)).softmax(-1)
    torch.testing.assert_close(layer(x)[0, :, 0, 0], values @ weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [GlobalAttention, AxialAttention])
def test_a_larger_grid_than_learned_raises_user_error(layer):
    with pytest.raises(UserError, match="up to 4"):
        layer(8, 8, (4, 4), heads=2)(torch.randn(1, 8, 5, 4))
