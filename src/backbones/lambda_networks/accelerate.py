"""timm's lambda layers replaced by ours, which compute the same in less time and memory."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.lambda_layer import LambdaLayer as TimmLambdaLayer
from torch import nn

from datamodules import DataSpec, ModalitySpec, UserError

from ..baselines import TimmImageNetwork
from .lambda_layer import LambdaLayer


def accelerate(model: nn.Module) -> nn.Module:
    """Replaces every lambda layer of timm by ours, with its weights. Outputs and gradients stay the same, up to rounding.

    Names of parameters change: load weights of timm before.

    Args:
        model: a network of timm, such as lambda_resnet26t; it is changed in place.

    Returns:
        The model.

    Raises:
        UserError: it has no lambda layer of timm.
    """
    if not any(isinstance(module, TimmLambdaLayer) for module in model.modules()):
        raise UserError(f"{type(model).__name__} has no lambda layer of timm: give a model such as lambda_resnet26t")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, TimmLambdaLayer):
                setattr(module, name, converted(child))
    return model


@torch.no_grad()
def converted(theirs: Any) -> nn.Module:
    """Our layer with the weights of a layer of timm, and its pooling."""
    weight, bias = theirs.qkv.weight.flatten(1), theirs.qkv.bias
    sizes = [theirs.num_heads * theirs.dim_qk, theirs.dim_qk, theirs.dim_v]
    if theirs.pos_emb is not None:
        table, grid, scope = theirs.pos_emb.permute(2, 0, 1), theirs.feat_size, None
    else:
        table = theirs.conv_lambda.weight[:, 0, :, :, 0]
        grid, scope = None, tuple(table.shape[1:])
    ours: Any = LambdaLayer(
        weight.shape[1], theirs.num_heads * theirs.dim_v, theirs.dim_qk, theirs.num_heads, grid=grid, scope=scope
    ).to(weight)
    for target, source in zip((ours.to_queries, ours.to_keys, ours.to_values), weight.split(sizes), strict=True):
        target.copy_(source)
    ours.embeddings.copy_(table[:, None])
    ours.norm_queries, ours.norm_values = theirs.norm_q, theirs.norm_v
    if bias is not None:  # that of the keys cancels in the softmax; norms subtract the others with the mean
        of_queries, _, of_values = bias.split(sizes)
        ours.norm_queries.running_mean.sub_(of_queries)
        ours.norm_values.running_mean.sub_(of_values)
    if theirs.conv_lambda is not None:
        ours.position_bias = nn.Parameter(theirs.conv_lambda.bias.clone())
    ours.train(theirs.training)
    return ours if isinstance(theirs.pool, nn.Identity) else nn.Sequential(ours, theirs.pool)


class TimmLambdaResNet(TimmImageNetwork):
    """A LambdaResNet of timm, for its published weights (`weights: timm:lambda_resnet26t`), with our lambda layers.

    timm's networks are others than the paper's: `LambdaResNet` has those.

    Args:
        data_spec: spec of the data, a single modality on a 2-D grid.
        name: timm name: lambda_resnet26t, lambda_resnet50ts, or lambda_resnet26rpt_256.
        positions: append the positional features to the input channels.
        stochastic_depth: probability of dropping the last block in training; it grows from 0 over the blocks.
    """

    prefixes, examples = ("lambda_resnet",), "lambda_resnet26t, lambda_resnet50ts"
    first_layer_pixels = 9  # a stem of 3x3 convolutions

    def __init__(
        self,
        data_spec: DataSpec,
        name: str = "lambda_resnet26t",
        positions: bool = False,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__(data_spec, name, positions, stochastic_depth)
        self.network = self.adapted(self.network)

    def timm_options(self, spec: ModalitySpec) -> dict:
        return {"img_size": spec.grid}

    def adapted(self, network: nn.Module) -> nn.Module:
        return accelerate(network)
