"""Chunked attention equals softmax over full scores, for everything that the plan may choose."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from src.backbones.perceiver.elements import Elements, chunk_slices
from src.backbones.perceiver.reading import ReadPlan, plan_read, prepare_elements, read_elements

CHANNELS, ROWS, BATCH = 12, 6, 3


def two_modalities(learned_positions: bool) -> tuple[list[tuple], list[Tensor]]:
    """A modality with shared positions, one with a mask and positions per example, and their learned tensors."""
    shared = torch.randn(10, 4, dtype=torch.float64, requires_grad=learned_positions)
    vectors = [torch.randn(width, dtype=torch.float64, requires_grad=True) for width in (3, 5)]
    own = torch.randn(BATCH, 7, 3, dtype=torch.float64)
    mask = torch.rand(BATCH, 7) > 0.4
    first = (torch.randn(BATCH, 10, 5, dtype=torch.float64), shared, vectors[0], None)
    second = (torch.randn(BATCH, 7, 4, dtype=torch.float64), own, vectors[1], mask)
    return [first, second], vectors + ([shared] if learned_positions else [])


def textbook(queries: Tensor, modalities: list[tuple]) -> Tensor:
    """Elements concatenated, LayerNorm, softmax over full scores."""
    parts, masks = [], []
    for values, positions, vector, mask in modalities:
        count = values.shape[1]
        given = [values, positions.expand(BATCH, -1, -1), vector.expand(BATCH, count, -1)]
        parts.append(torch.cat(given, -1))
        masks.append(torch.ones(BATCH, count, dtype=torch.bool) if mask is None else mask)
    x = F.layer_norm(torch.cat(parts, 1), (CHANNELS,))
    scores = (queries @ x.transpose(1, 2)).masked_fill(~torch.cat(masks, 1)[:, None], -torch.inf)
    return scores.softmax(-1) @ x


def read(queries: Tensor, modalities: list[tuple], plan: ReadPlan) -> Tensor:
    return read_elements(queries, [prepare_elements(*given, plan) for given in modalities], plan)


@pytest.mark.parametrize("learned_positions", [False, True])
@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_reading_equals_the_textbook_for_every_chunk_with_all_gradients(chunk, store, learned_positions):
    modalities, learned = two_modalities(learned_positions)
    queries = torch.randn(BATCH, ROWS, CHANNELS, dtype=torch.float64, requires_grad=True)
    wanted = textbook(queries, modalities)
    found = read(queries, modalities, ReadPlan(BATCH, chunk, store, torch.float64))
    weight = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((out * weight).sum(), [queries, *learned]) for out in (wanted, found)]
    assert (found - wanted).abs().max() < 1e-12
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 1e-12 * max(1, a.abs().max())


@pytest.mark.parametrize("learned_positions", [False, True])
def test_values_that_ask_for_gradients_get_the_textbooks(learned_positions):
    modalities, learned = two_modalities(learned_positions)
    values = [given[0].requires_grad_() for given in modalities]
    queries = torch.randn(BATCH, ROWS, CHANNELS, dtype=torch.float64)
    outs = textbook(queries, modalities), read(queries, modalities, ReadPlan(BATCH, 4, True, torch.float64))
    weight = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((out * weight).sum(), [*values, *learned]) for out in outs]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 1e-12 * max(1, a.abs().max())


def test_a_row_without_any_element_reads_zeros_and_gives_finite_gradients():
    (values, positions, vector, _), _ = two_modalities(False)[0]
    queries = torch.randn(BATCH, ROWS, CHANNELS, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(BATCH, 10, dtype=torch.bool)
    found = read(queries, [(values, positions, vector, nothing)], ReadPlan(BATCH, 4, False, torch.float64))
    assert torch.equal(found, torch.zeros_like(found))
    found.sum().backward()
    assert queries.grad.isfinite().all()
    assert vector.grad.isfinite().all()


def test_float32_is_within_1e_5_of_float64():
    modalities, _ = two_modalities(False)
    queries = torch.randn(BATCH, ROWS, CHANNELS, dtype=torch.float64)
    wanted = textbook(queries, modalities)
    single = [tuple(t if t is None or t.dtype == torch.bool else t.float() for t in given) for given in modalities]
    found = read(queries.float(), single, ReadPlan(BATCH, 4, False, torch.float32))
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_at_imagenets_length_is_within_its_rounding_of_float64(dtype):
    """M = 50,176 with few latents, forward and backward; realistic size: pixels and positions of order 1."""
    elements, channels, rows = 50_176, 64, 2
    values, positions = torch.randn(1, elements, 3), torch.rand(elements, channels - 3) * 2 - 1
    queries = torch.randn(1, rows, channels) / channels**0.5
    weight = torch.randn(1, rows, channels)
    found = {}
    for kind in (torch.float64, dtype):
        query = queries.to(dtype).to(kind).requires_grad_()
        given = [(values.to(torch.promote_types(kind, torch.float32)), positions.double(), None, None)]
        out = read(query, given, ReadPlan(BATCH, 4096, False, kind))
        (gradient,) = torch.autograd.grad((out.float() * weight).sum(), query)
        assert out.dtype == kind
        found[kind] = (out.double(), gradient.double())
    for exact, rounded in zip(found[torch.float64], found[dtype], strict=True):
        assert rounded.isfinite().all()
        assert (exact - rounded).abs().max() < 8 * torch.finfo(dtype).eps * exact.abs().max()


def test_nothing_of_the_elements_size_is_kept_for_the_backward_pass_where_they_are_not_stored():
    values, positions = torch.randn(1, 4096, 3), torch.randn(4096, 61)
    queries = torch.randn(1, ROWS, 64, requires_grad=True)
    plan = ReadPlan(BATCH, 256, False, torch.float32)
    segments: list[Elements] = [prepare_elements(values, positions, None, None, plan)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        read_elements(queries, segments, plan)
    given = {t.data_ptr() for t in (values, positions)}
    new = [t for t in kept if t.data_ptr() not in given]
    assert sum(t.numel() for t in new) < 3 * 4096 + 4 * queries.numel()


def test_elements_are_stored_up_to_64_mib_an_example():
    assert plan_read(1, 50_176, 512, 261, torch.float32, torch.device("cpu")).store
    assert not plan_read(1, 262_144, 64, 66, torch.float32, torch.device("cpu")).store


@pytest.mark.parametrize("count", [1, 255, 256, 257, 784, 1000])
def test_chunk_slices_are_equal_parts_that_cover_every_element_once(count):
    sizes = [len(range(count)[part]) for part in chunk_slices(count, 256)]
    assert [i for part in chunk_slices(count, 256) for i in range(count)[part]] == list(range(count))
    assert max(sizes) <= 256
    assert max(sizes) - min(sizes) < len(sizes)
