"""Perceiver IO: its decoder is transformers', and outputs belong to queries, whatever their number and order."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from transformers import PerceiverConfig
from transformers.models.perceiver.modeling_perceiver import PerceiverBasicDecoder

from datamodules import UserError
from src.backbones import PerceiverIO
from src.backbones.perceiver.decoder import Decode

SMALL = {
    "num_latents": 5,
    "latent_dim": 16,
    "cross_attends": 2,
    "self_attends_per_block": 1,
    "self_heads": 4,
    "query_dim": 12,
}


def theirs(query_dim: int, latent_dim: int, heads: int, widening: int, outputs: int) -> PerceiverBasicDecoder:
    config = PerceiverConfig(d_latents=latent_dim, attention_probs_dropout_prob=0.0)
    return PerceiverBasicDecoder(
        config,
        output_num_channels=query_dim,
        output_index_dims=outputs,
        num_channels=query_dim,
        trainable_position_encoding_kwargs={"num_channels": query_dim, "index_dims": outputs},
        num_heads=heads,
        widening_factor=widening,
        use_query_residual=True,
        final_project=False,
    )


def load(ours: Decode, layer: nn.Module) -> dict[str, str]:
    """Give ours the weights of a PerceiverLayer; returns our parameters' names by theirs, where they are the same."""
    theirs = dict(layer.named_parameters())
    attend = "attention.self"
    names = {
        f"{attend}.layernorm1": "norm_queries",
        f"{attend}.layernorm2": "norm_latents",
        f"{attend}.query": "query",
        "attention.output.dense": "out",
        "layernorm": "mlp.norm",
        "mlp.dense1": "mlp.up",
        "mlp.dense2": "mlp.down",
    }
    same = {f"{a}.{kind}": f"{b}.{kind}" for a, b in names.items() for kind in ("weight", "bias")}
    state = {b: theirs[a].detach() for a, b in same.items()}
    for kind in ("weight", "bias"):
        state[f"key_value.{kind}"] = torch.cat(
            [theirs[f"{attend}.{part}.{kind}"].detach() for part in ("key", "value")]
        )
    ours.load_state_dict(state)
    return same


@pytest.mark.parametrize(("heads", "widening", "outputs"), [(1, 1, 1), (4, 1, 9), (2, 3, 30)])
def test_outputs_and_gradients_equal_those_of_transformers_decoder(heads, widening, outputs):
    decoder = theirs(12, 16, heads, widening, outputs).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    layer, ours = decoder.decoding_cross_attention, Decode(12, 16, heads, widening).double()
    same = load(ours, layer)
    latents = torch.randn(3, 7, 16, dtype=torch.float64, requires_grad=True)
    queries = decoder.decoder_query(latents).detach().requires_grad_()
    found, wanted = ours(queries, latents), decoder(queries, latents).logits
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    of_ours, of_theirs = dict(ours.named_parameters()), dict(layer.named_parameters())
    grads = [
        torch.autograd.grad(y.square().sum(), [queries, latents, *(parameters[name] for name in chosen)])
        for y, parameters, chosen in ((found, of_ours, same.values()), (wanted, of_theirs, same))
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_each_output_belongs_to_its_element(clip_spec):
    """Moving the elements moves the outputs: latents and queries know positions, not places."""
    model = PerceiverIO(clip_spec, outputs="video", **SMALL).double()
    inputs = {name: array.to(torch.float64) for name, array in clip_spec.example_inputs(2).items()}
    order = torch.stack([torch.randperm(24) for _ in range(2)])
    moved = {**inputs, "video": inputs["video"].permute(order)}
    wanted = model(inputs)
    assert wanted.shape == (2, 24, 12)
    torch.testing.assert_close(model(moved), wanted[torch.arange(2)[:, None], order], rtol=1e-11, atol=1e-11)


def test_outputs_depend_on_the_other_modality_and_on_no_masked_element(clip_spec):
    model = PerceiverIO(clip_spec, outputs="video", **SMALL).double()
    inputs = {name: array.to(torch.float64) for name, array in clip_spec.example_inputs(2).items()}
    louder = {**inputs, "audio": replace(inputs["audio"], values=inputs["audio"].values + 1)}
    assert not torch.allclose(model(louder), model(inputs))
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    found = [model({**each, "audio": replace(each["audio"], mask=hidden)}) for each in (inputs, louder)]
    assert torch.equal(*found)


@pytest.mark.parametrize("outputs", [None, "audio"])
def test_every_parameter_is_used(clip_spec, outputs):
    model = PerceiverIO(clip_spec, outputs=outputs, **SMALL)
    features = model(clip_spec.example_inputs(2))
    assert features.shape == (2, 1 if outputs is None else 12, model.num_features)
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    blocks = {parameter for block in model.blocks for parameter in block.parameters()}
    assert set(model.decode.parameters()) <= blocks


def test_options_that_do_not_fit_raise_user_error(clip_spec):
    make = partial(PerceiverIO, clip_spec, **SMALL)
    with pytest.raises(UserError, match=r"outputs is 'image', the data have \['audio', 'video'\]"):
        make(outputs="image")
    with pytest.raises(UserError, match="latent_dim 16 does not divide by decode_heads 3"):
        make(decode_heads=3)
