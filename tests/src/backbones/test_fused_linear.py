"""Fused linear maps equal the plain ones and save less for the backward pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from src.backbones.perceiver.attention import SelfAttend
from src.backbones.perceiver.fused_linear import gelu_linear, norm_linear


def gradients(output: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return list(torch.autograd.grad(output, inputs, torch.randn_like(output)))


def modules(dtype: torch.dtype) -> tuple[nn.LayerNorm, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(12).to(dtype), nn.Linear(12, 20).to(dtype)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return norm, linear, torch.randn(3, 5, 12, dtype=dtype, requires_grad=True)


def test_they_equal_the_plain_maps_in_outputs_and_all_gradients():
    norm, linear, x = modules(torch.float64)
    cases = [
        (norm_linear(x, norm, linear), linear(norm(x)), [x, *norm.parameters(), *linear.parameters()]),
        (gelu_linear(x, linear), linear(F.gelu(x)), [x, *linear.parameters()]),
    ]
    for ours, plain, inputs in cases:
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
        for a, b in zip(gradients(ours, *inputs), gradients(plain, *inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_they_round_as_the_plain_maps_do(dtype):
    norm, linear, x = modules(torch.float32)
    exact = linear(norm(x)).detach()
    with torch.autocast("cpu", dtype):
        ours, plain = norm_linear(x, norm, linear), linear(norm(x))
        gelu = gelu_linear(x, linear)
    assert ours.dtype == plain.dtype == gelu.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert (ours - exact).abs().max() < 8 * eps * exact.abs().max()
    for found, like in zip(
        gradients(ours.float(), x, linear.weight), gradients(plain.float(), x, linear.weight), strict=True
    ):
        assert found.dtype == torch.float32
        assert (found - like).abs().max() < 16 * eps * like.abs().max()
    assert all(g.isfinite().all() for g in gradients(gelu.float(), x, linear.weight))


def test_a_self_attend_keeps_seven_arrays_of_the_latents_size():
    block = SelfAttend(64, heads=4, widening=1)
    latents = torch.randn(2, 32, 64, requires_grad=True)
    parameters = {p.untyped_storage().data_ptr() for p in block.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = block(latents)
    size = latents.untyped_storage().nbytes()
    # input; query, key and value; what was read; between attend and MLP; inside the MLP. And what norms and softmax sum up
    assert 7 * size <= sum(kept.values()) < 7.2 * size
    output.sum().backward()
