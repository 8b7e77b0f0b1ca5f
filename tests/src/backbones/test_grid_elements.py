"""Elements of a grid read along its axes equal the textbook and the general path, whatever their order and company."""

import copy
from dataclasses import replace
from shutil import which

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules import ByteArray, DataSpec, ModalitySpec
from datamodules.core.positions import axis_features, fourier_channels, grid_features
from src.backbones import Perceiver
from src.backbones.perceiver.grid_elements import GridElements
from src.backbones.perceiver.reading import ReadPlan, is_separable, prepare_elements, prepare_grid, read_elements

BATCH, ROWS, BANDS = 3, 6, 2
DOUBLE = torch.float64
SMALL = {"num_latents": 4, "latent_dim": 16, "cross_attends": 2, "self_attends_per_block": 1, "self_heads": 4}


def grid_array(grid: tuple[int, ...], channels: int, bands: int = BANDS, batch: int = BATCH) -> ByteArray:
    axes = axis_features(grid, bands).to(DOUBLE)
    positions = grid_features(axes, grid)
    return ByteArray(torch.randn(batch, len(positions), channels, dtype=DOUBLE), positions, grid, axes=axes)


def textbook(queries: Tensor, arrays: list[ByteArray], vectors: list[Tensor | None]) -> Tensor:
    """Elements concatenated, LayerNorm, softmax over full scores."""
    parts = []
    for array, vector in zip(arrays, vectors, strict=True):
        part = array.concat()
        parts.append(part if vector is None else torch.cat([part, vector.expand(*part.shape[:2], -1)], -1))
    x = F.layer_norm(torch.cat(parts, 1), parts[0].shape[-1:])
    scores = queries @ x.transpose(1, 2)
    real = [torch.ones(a.values.shape[:2], dtype=torch.bool) if a.mask is None else a.mask for a in arrays]
    return scores.masked_fill(~torch.cat(real, 1)[:, None], -torch.inf).softmax(-1) @ x


def assert_equal_with_gradients(wanted: Tensor, found: Tensor, tensors: list[Tensor]) -> None:
    weight = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((out * weight).sum(), tensors) for out in (wanted, found)]
    assert (found - wanted).abs().max() < 1e-12
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 1e-12 * max(1, a.abs().max())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", [0, 3])
@pytest.mark.parametrize(("examples", "chunk"), [(BATCH, 1000), (2, 11), (1, 1)])
@pytest.mark.parametrize("grid", [(5, 7), (3, 4, 5), (2, 3, 2, 3), (1, 6), (6, 1)])
def test_a_grid_reads_as_the_textbook_with_all_gradients(grid, examples, chunk, width, masked):
    array = grid_array(grid, channels=4)
    array = replace(array, mask=torch.rand(array.values.shape[:2]) < 0.6 if masked else None)
    array.values.requires_grad_()
    vector = torch.randn(width, dtype=DOUBLE, requires_grad=True) if width else None
    queries = torch.randn(BATCH, ROWS, 4 + array.positions.shape[-1] + width, dtype=DOUBLE, requires_grad=True)
    plan = ReadPlan(examples, chunk, False, DOUBLE)
    found = read_elements(queries, [prepare_grid(array, vector, array.mask)], plan)
    learned = [queries, array.values] + ([vector] if width else [])
    assert_equal_with_gradients(textbook(queries, [array], [vector]), found, learned)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_grids_and_other_elements_share_one_softmax(order):
    grids = [grid_array((4, 5), 4), grid_array((2, 3, 2), 3)]  # 10 and 15 channels of positions
    points = ByteArray(torch.randn(BATCH, 7, 6, dtype=DOUBLE), torch.randn(BATCH, 7, 5, dtype=DOUBLE))
    points = replace(points, mask=torch.rand(BATCH, 7) < 0.5)
    vectors = [torch.randn(20 - width, dtype=DOUBLE, requires_grad=True) for width in (14, 18, 11)]
    queries = torch.randn(BATCH, ROWS, 20, dtype=DOUBLE, requires_grad=True)
    plan = ReadPlan(2, 6, False, DOUBLE)
    segments = [prepare_grid(array, vector, None) for array, vector in zip(grids, vectors, strict=False)]
    segments.append(prepare_elements(points.values, points.positions, vectors[2], points.mask, plan))
    found = read_elements(queries, [segments[i] for i in order], plan)
    assert_equal_with_gradients(textbook(queries, [*grids, points], vectors), found, [queries, *vectors])


def test_large_scores_of_one_modality_do_not_overflow_those_of_another():
    arrays = [grid_array((4, 5), 4), grid_array((3, 3), 4)]
    queries = 300 * torch.randn(BATCH, ROWS, 14, dtype=DOUBLE, requires_grad=True)
    queries = queries.detach().requires_grad_()
    found = read_elements(queries, [prepare_grid(a, None, None) for a in arrays], ReadPlan(1, 5, False, DOUBLE))
    assert_equal_with_gradients(textbook(queries, arrays, [None, None]), found, [queries])


def test_an_example_without_any_element_reads_zeros_and_gives_finite_gradients():
    array = grid_array((5, 7), 4)
    vector = torch.randn(3, dtype=DOUBLE, requires_grad=True)
    queries = torch.randn(BATCH, ROWS, 17, dtype=DOUBLE, requires_grad=True)
    mask = torch.ones(BATCH, 35, dtype=torch.bool)
    mask[1] = False
    found = read_elements(queries, [prepare_grid(array, vector, mask)], ReadPlan(2, 11, False, DOUBLE))
    assert torch.equal(found[1], torch.zeros_like(found[1]))
    found.sum().backward()
    assert queries.grad.isfinite().all()
    assert vector.grad.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
def test_lower_precision_at_imagenets_length_is_within_its_rounding_of_float64(dtype, tolerance):
    array = grid_array((224, 224), 3, bands=16, batch=1)
    queries = torch.randn(1, 2, 69, dtype=DOUBLE).to(dtype) / 8
    weight = torch.randn(1, 2, 69, dtype=DOUBLE)
    found = []
    for kind in (DOUBLE, dtype):
        query = queries.to(kind).requires_grad_()
        wide = array.to(torch.promote_types(kind, torch.float32))
        out = read_elements(query, [prepare_grid(wide, None, None)], ReadPlan(1, 2**18, False, kind))
        (gradient,) = torch.autograd.grad((out.to(DOUBLE) * weight).sum(), query)
        assert out.dtype == kind
        found.append((out.to(DOUBLE), gradient.to(DOUBLE)))
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).abs().max() < tolerance * exact.abs().max()


def test_nothing_of_the_size_of_scores_or_normalised_elements_is_kept_for_the_backward_pass():
    array = grid_array((64, 64), 3, bands=8, batch=1).to(torch.float32)
    queries = torch.randn(1, ROWS, 37, requires_grad=True)
    segment = prepare_grid(array, None, None)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        read_elements(queries, [segment], ReadPlan(1, 256, False, torch.float32))
    new = [t for t in kept if t.data_ptr() != array.values.data_ptr()]
    assert sum(t.numel() for t in new) < 9 * 4096 + 2 * 64 * 34 + 4 * queries.numel()


@pytest.fixture
def video_spec() -> DataSpec:
    """A modality that is read along its axes and one that is not."""
    audio = ModalitySpec(6, 5, 12, (12,), 1)
    return DataSpec({"audio": audio, "video": ModalitySpec(4, 51, 256, (4, 8, 8), 3)}, "multi_label", ("a", "b"))


def video_inputs(spec: DataSpec, axes: bool = True) -> dict[str, ByteArray]:
    torch.manual_seed(3)
    inputs = {name: array.to(DOUBLE) for name, array in spec.example_inputs(BATCH).items()}
    inputs["video"] = replace(grid_array((4, 8, 8), 4, bands=8), mask=torch.rand(BATCH, 256) < 0.8)
    return inputs if axes else {name: replace(array, axes=None) for name, array in inputs.items()}


def build(spec: DataSpec, **options) -> Perceiver:
    torch.manual_seed(4)
    model = Perceiver(spec, **{**SMALL, **options}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def outputs_and_gradients(model, function, inputs: dict[str, ByteArray]) -> list[Tensor]:
    model.zero_grad()
    output = function(inputs)
    output.square().sum().backward()
    return [output.detach(), *(p.grad.clone() for p in model.parameters())]


def assert_all_close(found: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-12) -> None:
    largest = max(tensor.abs().max() for tensor in wanted[1:])
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= tolerance * max(b.abs().max(), largest)


@pytest.mark.parametrize("cross_heads", [1, 2])
def test_a_perceiver_takes_the_grid_and_equals_the_general_path(video_spec, cross_heads):
    model = build(video_spec, cross_heads=cross_heads)
    inputs = video_inputs(video_spec)
    kinds = [isinstance(segment, GridElements) for segment in model.segments(inputs)[0]]
    assert kinds == [False, True]
    general = outputs_and_gradients(model, model, video_inputs(video_spec, axes=False))
    assert_all_close(outputs_and_gradients(model, model, inputs), general)


@pytest.mark.parametrize("each", [False, True])
def test_a_permuted_grid_is_read_as_a_grid_with_the_same_outputs_and_gradients(video_spec, each):
    model, inputs = build(video_spec), video_inputs(video_spec)
    orders = [
        torch.stack([torch.randperm(256) for _ in range(BATCH)]) if each else torch.randperm(256) for _ in range(2)
    ]
    wanted = outputs_and_gradients(model, model, inputs)
    moved = inputs["video"].permute(orders[0]).permute(orders[1])
    assert isinstance(model.elements("video", moved, model.segments(inputs)[1]), GridElements)
    assert_all_close(outputs_and_gradients(model, model, {**inputs, "video": moved}), wanted)
    maps = [model.attention_maps({**inputs, "video": array})["video"].flatten(4) for array in (inputs["video"], moved)]
    order = orders[0].expand(BATCH, -1).gather(1, orders[1].expand(BATCH, -1))
    expected = maps[0].gather(-1, order[:, None, None, None].expand_as(maps[0]))
    assert (maps[1] - expected).abs().max() < 1e-12


def test_gradients_of_values_pass_through_a_permutation(video_spec):
    model, inputs = build(video_spec), video_inputs(video_spec)
    order = torch.stack([torch.randperm(256) for _ in range(BATCH)])
    values = inputs["video"].values.requires_grad_()
    found = []
    for video in (inputs["video"], inputs["video"].permute(order), replace(inputs["video"], axes=None)):
        found.append(torch.autograd.grad(model({**inputs, "video": video}).square().sum(), values)[0])
    assert_all_close([found[1]] * 2, [found[2]] * 2)
    assert_all_close([found[0]] * 2, [found[2]] * 2)


def test_checkpointing_and_a_second_backward_change_nothing(video_spec):
    inputs = video_inputs(video_spec)
    plain = build(video_spec)
    wanted = outputs_and_gradients(plain, plain, inputs)
    assert_all_close(outputs_and_gradients(plain, plain, inputs), wanted, 0)  # nothing prepared is overwritten
    checkpointed = build(video_spec, checkpointing=True)
    assert_all_close(outputs_and_gradients(checkpointed, checkpointed, inputs), wanted)


def test_compiles_as_one_graph_with_the_same_outputs_and_gradients(video_spec):
    """One iteration; test_perceiver compiles more of them, with checkpointing."""
    model, inputs = build(video_spec, cross_attends=1), video_inputs(video_spec)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    wanted = outputs_and_gradients(model, model, inputs)
    assert_all_close(outputs_and_gradients(model, compiled, inputs), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_outputs_and_gradients_as_little_as_on_the_general_path(video_spec, dtype):
    model = build(video_spec)
    exact = outputs_and_gradients(model, model, video_inputs(video_spec))
    single = copy.deepcopy(model).float()

    def autocast(inputs: dict[str, ByteArray]) -> Tensor:
        with torch.autocast("cpu", dtype):
            return single(inputs).float()

    errors = []
    for axes in (True, False):
        inputs = {name: array.to(torch.float32) for name, array in video_inputs(video_spec, axes).items()}
        found = outputs_and_gradients(single, autocast, inputs)
        errors.append(max((a - b).norm() / (b.norm() + exact[0].norm()) for a, b in zip(found, exact, strict=True)))
    assert errors[0] < 1.5 * errors[1]


@pytest.mark.parametrize(
    ("grid", "bands", "channels", "separable"),
    [
        ((224, 224), 64, 3, True),
        ((16, 28, 28), 64, 384, True),
        ((28, 28), 16, 1, True),
        ((480,), 64, 128, False),  # one axis
        ((16, 4, 4), 8, 384, False),  # most channels are values
        ((28, 28), 4, 1, False),  # few channels of positions
        ((8, 8), 16, 1, False),  # few elements
    ],
)
def test_a_grid_is_read_along_its_axes_where_that_is_faster(grid, bands, channels, separable):
    elements, width = torch.Size(grid).numel(), fourier_channels(len(grid), bands)
    with torch.device("meta"):
        array = ByteArray(torch.empty(1, elements, channels), torch.empty(elements, width), grid)
        assert is_separable(replace(array, axes=torch.empty(sum(grid), width))) == separable
        assert not is_separable(array)


@pytest.mark.integration
@pytest.mark.skipif(which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_kernel_gives_the_same_outputs_and_gradients(video_spec):
    model = build(video_spec).float()  # float64 attention has no compiled backward pass in torch 2.11
    inputs = {name: array.to(torch.float32) for name, array in video_inputs(video_spec).items()}
    wanted = outputs_and_gradients(model, model, inputs)
    assert_all_close(outputs_and_gradients(model, torch.compile(model, fullgraph=True), inputs), wanted, 1e-4)
