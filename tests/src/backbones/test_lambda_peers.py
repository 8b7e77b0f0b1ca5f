"""Our lambda layer against the public ones, wherever those can express the case: outputs and all gradients."""

import pytest
import torch
from lambda_networks import LambdaLayer as LambdaNetworks
from timm.layers.lambda_layer import LambdaLayer as Timm
from torch import Tensor, nn
from torch.func import functional_call

from src.backbones import LambdaLayer

DIM, KEY_DEPTH, HEADS = 32, 4, 2


def norms(ours: LambdaLayer) -> dict[str, Tensor]:
    named = (("norm_q", ours.norm_queries), ("norm_v", ours.norm_values))
    return {f"{name}.{key}": value for name, norm in named for key, value in norm.state_dict(keep_vars=True).items()}


def as_timm(ours: LambdaLayer, side: int, scope: int | None) -> tuple[nn.Module, dict[str, Tensor]]:
    """timm's layer, and its parameters made of ours."""
    theirs = Timm(DIM, DIM, feat_size=(side, side), num_heads=HEADS, dim_head=KEY_DEPTH, r=scope).double()
    state = norms(ours)
    state["qkv.weight"] = torch.cat([ours.to_queries, ours.to_keys, ours.to_values])[..., None, None]
    table = ours.embeddings[:, 0]
    if scope is None:
        state["pos_emb"] = table.permute(1, 2, 0)
    else:
        state["conv_lambda.weight"] = table[:, None, ..., None]
        state["conv_lambda.bias"] = table.new_zeros(KEY_DEPTH)  # which the paper does not have
    return theirs, state


def as_lambda_networks(ours: LambdaLayer, side: int, scope: int | None) -> tuple[nn.Module, dict[str, Tensor]]:
    """lambda-networks' layer, and its parameters made of ours; its channels go by intra-depth, then depth."""
    intra = ours.intra_depth
    where = {"n": side} if scope is None else {"r": scope}
    theirs = LambdaNetworks(dim=DIM, dim_out=DIM, dim_k=KEY_DEPTH, heads=HEADS, dim_u=intra, **where).double()

    def intra_first(x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, intra)).transpose(0, 1).flatten(0, 1) if x.dim() else x

    state = {k: intra_first(v) if k.startswith("norm_v") else v for k, v in norms(ours).items()}
    state["to_q.weight"] = ours.to_queries[..., None, None]
    state["to_k.weight"] = intra_first(ours.to_keys)[..., None, None]
    state["to_v.weight"] = intra_first(ours.to_values)[..., None, None]
    if scope is None:
        state["rel_pos_emb"] = ours.embeddings.permute(2, 3, 0, 1)
    else:
        state["pos_conv.weight"] = ours.embeddings.unsqueeze(2)
        state["pos_conv.bias"] = ours.embeddings.new_zeros(KEY_DEPTH)
    return theirs, state


CASES = [
    (as_timm, 8, None, 1),
    (as_timm, 16, None, 1),
    (as_timm, 16, 7, 1),
    (as_timm, 16, 23, 1),
    (as_lambda_networks, 8, None, 1),
    (as_lambda_networks, 8, None, 4),
    (as_lambda_networks, 16, None, 1),
    (as_lambda_networks, 16, 7, 1),
    (as_lambda_networks, 16, 7, 4),
    (as_lambda_networks, 16, 23, 1),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("peer", "side", "scope", "intra_depth"), CASES)
def test_outputs_and_gradients_equal_the_public_layers(peer, side, scope, intra_depth, training):
    torch.manual_seed(0)
    where = {"grid": (side, side)} if scope is None else {"scope": (scope, scope)}
    ours = LambdaLayer(DIM, DIM, KEY_DEPTH, HEADS, intra_depth, **where).double().train(training)
    for norm in (ours.norm_queries, ours.norm_values):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    theirs, state = peer(ours, side, scope)
    theirs.train(training)
    x = torch.randn(2, DIM, side, side, dtype=torch.float64, requires_grad=True)
    found, wanted = ours(x), functional_call(theirs, state, (x,))
    assert (found - wanted).abs().max() < 1e-12 * wanted.abs().max()
    upstream = torch.randn_like(found)
    gradients = [torch.autograd.grad(y, [x, *ours.parameters()], upstream) for y in (found, wanted)]
    for of_ours, of_theirs in zip(*gradients, strict=True):
        assert (of_ours - of_theirs).abs().max() < 1e-12 * of_theirs.abs().max()
