"""The Perceiver against a textbook one written here from the paper, and what must not change its output."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from src.backbones import Perceiver

SMALL = {"num_latents": 4, "latent_dim": 16, "cross_attends": 3, "self_attends_per_block": 2, "self_heads": 4}
IMAGENET = DataSpec(
    {"image": ModalitySpec(3, 258, 224 * 224, (224, 224), 2)}, "single_label", tuple(map(str, range(1000)))
)


def double_inputs(spec: DataSpec, batch: int = 3) -> dict[str, ByteArray]:
    return {name: array.to(torch.float64) for name, array in spec.example_inputs(batch).items()}


def build(spec: DataSpec, **options) -> Perceiver:
    """A small float64 Perceiver whose weights, the LayerNorms' included, are all random and large enough to matter."""
    model = Perceiver(spec, **{**SMALL, **options}).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(d)) v over full scores, head by head."""
    parts = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        parts.append(scores.softmax(-1) @ v)
    return torch.cat(parts, -1)


def textbook(model: Perceiver, inputs: dict[str, ByteArray], cross_heads: int, self_heads: int) -> Tensor:
    """Section 3.2, with K and V of all elements, on the weights of `model`."""
    parts, masks = [], []
    for name, array in inputs.items():
        positions = model.positions[name] if name in model.positions else array.positions
        part = torch.cat([array.values, positions.expand(len(array.values), -1, -1)], -1)
        if name in model.modality_vectors:
            part = torch.cat([part, model.modality_vectors[name].expand(*part.shape[:2], -1)], -1)
        parts.append(part)
        real = torch.ones(part.shape[:2], dtype=torch.bool)
        masks.append(real if array.mask is None else array.mask)
    elements, mask = torch.cat(parts, 1), torch.cat(masks, 1)
    x = model.latents.expand(len(elements), -1, -1)

    def mlp(block: nn.Module, x: Tensor) -> Tensor:
        return x + block.down(F.gelu(block.up(block.norm(x))))

    for cross_set, latent_set in zip(model.cross_weights, model.latent_weights, strict=True):
        if cross_set is not None:
            cross = model.cross[cross_set]
            normed = cross.norm_inputs(elements)
            query = cross.query(cross.norm_latents(x))
            read = attend(query, cross.key(normed), cross.value(normed), cross_heads, mask)
            x = mlp(cross.mlp, x + cross.out(read))
        for block in () if latent_set is None else model.transformers[latent_set]:
            query, key, value = block.query_key_value(block.norm(x)).chunk(3, -1)
            x = mlp(block.mlp, x + block.out(attend(query, key, value, self_heads, None)))
    return x


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    """The largest difference, relative to the largest value."""
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


def assert_equals_textbook(model: Perceiver, inputs: dict[str, ByteArray], cross_heads: int, self_heads: int) -> None:
    """Outputs, and the gradients of all parameters. A key bias adds the same to all scores of a row, so its gradient is
    zero but for rounding, and is compared with the size of the others."""
    outputs, gradients = [], []
    weight = None
    for forward in (model, lambda x: textbook(model, x, cross_heads, self_heads)):
        output = forward(inputs)
        weight = torch.randn_like(output) if weight is None else weight
        found = torch.autograd.grad((output * weight).sum(), list(model.parameters()), materialize_grads=True)
        outputs.append(output)
        gradients.append(found)
    assert_close(*outputs)
    largest = max(gradient.abs().max() for gradient in gradients[1])
    for (name, _), ours, theirs in zip(model.named_parameters(), *gradients, strict=True):
        scale = largest if name.endswith("key.bias") else theirs.abs().max()
        assert (ours - theirs).abs().max() <= 1e-12 * scale, name


@pytest.mark.parametrize("cross_heads", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_a_textbook_perceiver(image_spec, cross_heads, masked):
    inputs = double_inputs(image_spec)
    if masked:
        mask = torch.rand(3, 48) < 0.6
        inputs = {"image": replace(inputs["image"], mask=mask)}
    # 13 channels: with 2 or 4 heads Q, K and V are 12 wide
    assert_equals_textbook(build(image_spec, cross_heads=cross_heads), inputs, cross_heads, 4)


def test_equals_a_textbook_perceiver_with_learned_positions_and_several_modalities(clip_spec):
    inputs = double_inputs(clip_spec)
    inputs["audio"] = replace(inputs["audio"], mask=torch.rand(3, 12) < 0.5)
    assert_equals_textbook(build(clip_spec, positions="learned", cross_heads=2), inputs, 2, 4)
    assert_equals_textbook(build(clip_spec), inputs, 1, 4)


def test_equals_a_textbook_perceiver_where_elements_are_read_in_several_chunks():
    spec = DataSpec({"points": ModalitySpec(3, 6, 700, None, 3)}, "single_label", ("a",))
    options = {"num_latents": 1024, "latent_dim": 8, "cross_attends": 2, "self_attends_per_block": 0, "cross_heads": 2}
    inputs = double_inputs(spec, batch=2)
    inputs = {"points": replace(inputs["points"], mask=torch.arange(700).expand(2, -1) < torch.tensor([[690], [200]]))}
    assert_equals_textbook(build(spec, **options), inputs, 2, 4)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 44_912_254),
        ({"cross_weights": list(range(8)), "latent_weights": list(range(8))}, 326_241_856),
        ({"cross_attends": 1}, 42_135_859),
    ],
)
def test_parameter_count_is_the_papers_on_imagenet(options, parameters):
    with torch.device("meta"):
        model = Perceiver(IMAGENET, **options)
        head = nn.Linear(model.num_features, 1000)
    assert sum(p.numel() for m in (model, head) for p in m.parameters()) == parameters


def test_latents_and_learned_positions_start_with_the_papers_standard_deviation(image_spec):
    model = Perceiver(image_spec, num_latents=128, latent_dim=256, positions="learned")
    assert model.positions["image"].shape == (48, 128)
    for learned in (model.latents, model.positions["image"]):
        assert learned.std().item() == pytest.approx(0.02, rel=0.05)
        assert learned.mean().abs() < 0.001


def test_receptive_field_is_all_elements(image_spec, clip_spec):
    assert Perceiver(image_spec, **SMALL).receptive_field() == 48
    assert Perceiver(clip_spec, **SMALL).receptive_field() == 12 + 24


@pytest.mark.parametrize("order", [torch.randperm(48), torch.stack([torch.randperm(48) for _ in range(3)])])
def test_permuting_elements_with_their_positions_changes_no_output(image_spec, order):
    model, inputs = build(image_spec), double_inputs(image_spec)
    inputs = {"image": replace(inputs["image"], mask=torch.rand(3, 48) < 0.8)}
    assert_close(model({"image": inputs["image"].permute(order)}), model(inputs))


def test_padding_with_a_mask_equals_the_shorter_input(set_spec):
    model, points = build(set_spec), double_inputs(set_spec)["points"]
    padding = ByteArray(torch.full((3, 7, 3), 1e3).double(), torch.randn(7, 9).double())
    padded = ByteArray(
        torch.cat([points.values, padding.values], 1),
        torch.cat([points.positions, padding.positions]),
        mask=(torch.arange(27) < 20).expand(3, -1),
    )
    assert_close(model({"points": padded}), model({"points": points}))


def test_order_of_modalities_in_the_batch_changes_no_output(clip_spec):
    model, inputs = build(clip_spec), double_inputs(clip_spec)
    assert_close(model(dict(reversed(inputs.items()))), model(inputs))


def test_modality_vectors_pad_all_modalities_to_one_width(clip_spec):
    model = Perceiver(clip_spec, **SMALL)  # audio 6 + 5 channels, video 4 + 9
    assert {name: len(vector) for name, vector in model.modality_vectors.items()} == {"audio": 6, "video": 4}


def test_modality_dropout_hides_a_modality_only_in_training(clip_spec):
    model, inputs = build(clip_spec, modality_dropout={"video": 1.0}), double_inputs(clip_spec)
    hidden = torch.zeros(3, 24, dtype=torch.bool)
    without_video = {**inputs, "video": replace(inputs["video"], mask=hidden)}
    model.train()
    assert_close(model(inputs), model(without_video))
    model.eval()
    assert not torch.allclose(model(inputs), model(without_video))


def test_modality_dropout_hides_the_given_share_of_examples(clip_spec):
    model = build(clip_spec, modality_dropout={"video": 0.3}, num_latents=1, cross_attends=1, self_attends_per_block=0)
    inputs = {n: a.to(torch.float64) for n, a in clip_spec.example_inputs(2000).items()}
    seen = (model.train()(inputs) - model.eval()(inputs)).abs().amax(dim=(1, 2)) < 1e-9
    assert 0.25 < 1 - seen.double().mean() < 0.35


def test_hiding_every_element_of_an_example_gives_finite_outputs_and_gradients(image_spec):
    model, image = build(image_spec), double_inputs(image_spec)["image"]
    mask = torch.ones(3, 48, dtype=torch.bool)
    mask[1] = False
    output = model({"image": replace(image, mask=mask)})
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"cross_weights": [0, 1]},
        {"cross_weights": [0, 2, 2]},
        {"latent_weights": [1, 1, 1]},
        {"latent_weights": [0, 1, 1, 1]},
        {"latent_weights": [0, -1, 0]},
        {"cross_weights": [None, None, None]},
        {"self_heads": 5},
        {"modality_dropout": {"smell": 0.5}},
    ],
)
def test_wrong_options_raise_user_error(image_spec, options):
    with pytest.raises(UserError, match=next(iter(options))):
        Perceiver(image_spec, **{**SMALL, **options})


@pytest.mark.parametrize(
    ("cross_weights", "latent_weights"), [([0, 1, None], [None, 0, 0]), ([0, None, 1], [0, 0, None])]
)
def test_iterations_may_lack_a_cross_attend_or_a_latent_transformer(image_spec, cross_weights, latent_weights):
    """As in the ablation that puts all cross-attends at the start."""
    weights = {"cross_attends": 3, "cross_weights": cross_weights, "latent_weights": latent_weights}
    model = build(image_spec, cross_heads=1, self_heads=2, **weights)
    assert_equals_textbook(model, double_inputs(image_spec), 1, 2)
    maps = model.attention_maps(double_inputs(image_spec), iterations=(0, 1))
    assert maps["image"].shape[1] == 2  # of the two that read


@pytest.mark.parametrize("modality_dropout", [None, {"video": 0.5}])
def test_checkpointing_changes_neither_outputs_nor_gradients(clip_spec, modality_dropout):
    inputs = double_inputs(clip_spec)
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = build(clip_spec, checkpointing=checkpointing, modality_dropout=modality_dropout)
        output = model(inputs)
        output.sum().backward()
        found.append([output.detach(), *(p.grad for p in model.parameters())])
    for plain, checkpointed in zip(*found, strict=True):
        assert_close(checkpointed, plain)


def test_float32_is_within_1e_5_of_float64(clip_spec):
    double = Perceiver(clip_spec, **SMALL).double()
    single = Perceiver(clip_spec, **SMALL)
    single.load_state_dict(double.state_dict())
    inputs = double_inputs(clip_spec)
    assert_close(single({n: a.to(torch.float32) for n, a in inputs.items()}).double(), double(inputs), 1e-5)


def test_attention_maps_lie_on_the_grid_add_up_to_one_and_tell_what_is_read(clip_spec):
    model = build(clip_spec, cross_heads=2)
    inputs = double_inputs(clip_spec)
    maps = model.attention_maps(inputs, iterations=(0, 2, -1))
    assert maps["audio"].shape == (3, 3, 2, 4, 12)
    assert maps["video"].shape == (3, 3, 2, 4, 2, 4, 3)
    assert torch.equal(maps["audio"][:, 1], maps["audio"][:, 2])
    assert_close(maps["audio"].sum(-1) + maps["video"].flatten(4).sum(-1), torch.ones(3, 3, 2, 4, dtype=torch.float64))
    # hiding the video leaves the audio's weights in proportion
    hidden = replace(inputs["video"], mask=torch.zeros(3, 24, dtype=torch.bool))
    alone = model.attention_maps({**inputs, "video": hidden}, iterations=(0,))
    assert alone["video"].abs().max() == 0
    first = maps["audio"][:, :1]
    assert_close(alone["audio"], first / first.sum(-1, keepdim=True))


def test_equals_transformers_perceiver_layers_wired_as_the_paper_says(image_spec):
    """Weights copied from a public implementation that is not ours; float64."""
    from transformers import PerceiverConfig
    from transformers.models.perceiver.modeling_perceiver import PerceiverLayer

    model = build(image_spec, num_latents=5, latent_dim=16, cross_attends=2, self_attends_per_block=2, self_heads=4)
    inputs = double_inputs(image_spec)
    elements = inputs["image"].concat()
    config = PerceiverConfig(hidden_act="gelu", attention_probs_dropout_prob=0.0, _attn_implementation="eager")

    def layer(block: nn.Module, cross: bool) -> PerceiverLayer:
        width = elements.shape[-1] if cross else 16
        theirs = PerceiverLayer(
            config, is_cross_attention=cross, qk_channels=width, v_channels=width, num_heads=1 if cross else 4, q_dim=16,
            kv_dim=width, widening_factor=1, use_query_residual=True,
        ).double().eval()  # fmt: skip
        attention = theirs.attention.self
        pairs = [(theirs.attention.output.dense, block.out), (theirs.layernorm, block.mlp.norm)]
        pairs += [(theirs.mlp.dense1, block.mlp.up), (theirs.mlp.dense2, block.mlp.down)]
        if cross:
            pairs += [(attention.layernorm1, block.norm_latents), (attention.layernorm2, block.norm_inputs)]
            pairs += [(attention.query, block.query), (attention.key, block.key), (attention.value, block.value)]
        else:
            pairs.append((attention.layernorm1, block.norm))
            maps = (attention.query, attention.key, attention.value)
            weights, biases = block.query_key_value.weight.chunk(3), block.query_key_value.bias.chunk(3)
            for linear, weight, bias in zip(maps, weights, biases, strict=True):
                linear.load_state_dict({"weight": weight, "bias": bias})
        for linear, ours in pairs:
            linear.load_state_dict(ours.state_dict())
        return theirs

    x = model.latents.expand(len(elements), -1, -1)
    for cross_set, latent_set in zip(model.cross_weights, model.latent_weights, strict=True):
        x = layer(model.cross[cross_set], cross=True)(x, inputs=elements)[0]
        for block in model.transformers[latent_set]:
            x = layer(block, cross=False)(x)[0]
    assert_close(model(inputs), x)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiles_as_one_graph_with_the_same_outputs_and_gradients(clip_spec, checkpointing):
    """Traced by dynamo and AOT autograd; no graph break inside the model."""
    model = build(clip_spec, checkpointing=checkpointing)
    inputs = double_inputs(clip_spec)
    found = []
    for function in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        output = function(inputs)
        output.square().sum().backward()
        found.append([output.detach(), *(p.grad.clone() for p in model.parameters())])
    for plain, compiled in zip(*found, strict=True):
        assert_close(compiled, plain)


def test_the_published_initialisation_is_a_truncated_normal_of_variance_one_over_the_inputs(image_spec):
    torch.manual_seed(0)
    options = {"num_latents": 8, "latent_dim": 256, "cross_attends": 1, "self_attends_per_block": 1, "self_heads": 4}
    model = Perceiver(image_spec, **options, initialisation="published")
    for linear in (module for module in model.modules() if isinstance(module, nn.Linear)):
        scale = linear.in_features**-0.5
        assert not linear.bias.any()
        assert linear.weight.abs().max() <= 2 * scale / 0.8796 * 1.001
        if linear.weight.numel() > 50_000:
            assert linear.weight.std().item() == pytest.approx(scale, rel=0.02)
    torch.manual_seed(0)
    plain = Perceiver(image_spec, **options)
    assert torch.equal(plain.latents, model.latents)
    assert plain.transformers[0][0].out.bias.any()
