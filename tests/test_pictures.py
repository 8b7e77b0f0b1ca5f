"""What pictures are made of: permuted elements put back exactly, attention that sums to one, gradients where they belong."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import ByteArray, ByteArrayDataModule, Digits
from datamodules.core.flatten import GridModality
from datamodules.core.positions import fourier_features, grid_coordinates
from src.backbones import LambdaNet, LambdaResNet, Perceiver, ResNet, Transformer, ViT
from src.pictures.attention import attention_of, most_different
from src.pictures.permuted import places_of, put_back, restored
from src.pictures.receptive_fields import draw_importance, draw_receptive_fields, gradients, half
from src.pictures.samples import load_samples
from src.pictures.views import VIEWS, Video, letters, shine, stretch
from src.tasks import Classification, LinearProbe

small_perceiver = partial(
    Perceiver, num_latents=6, latent_dim=16, cross_attends=2, self_attends_per_block=1, self_heads=2
)


def classified(data: ByteArrayDataModule, count: int = 3, backbone=small_perceiver):
    task = Classification(data.spec, backbone).eval()
    return task, load_samples(task, data, "test", count)


@pytest.mark.parametrize("permutation", ["fixed", "per_example"])
def test_permuted_pixels_are_put_back_exactly(permutation):
    plain, moved = (Digits(permutation=p) for p in ("none", permutation))
    refs = {"key": ["a", "b"], "target": torch.zeros(2), "weight": torch.ones(2), "order_seed": torch.tensor([3, 4])}
    refs["image"] = torch.randint(0, 256, (2, 8, 8), dtype=torch.uint8)
    still, permuted = (data.flatten(refs).inputs["image"] for data in (plain, moved))
    assert places_of(still) is None
    places = places_of(permuted)
    assert places is not None
    assert places.shape == ((64,) if permutation == "fixed" else (2, 64))
    assert not torch.equal(permuted.values, still.values)
    assert torch.equal(restored(permuted).values, still.values)
    assert torch.equal(put_back(permuted.values[..., 0], places), still.values[..., 0])
    several = permuted.values[..., 0][:, None, None].expand(-1, 2, 5, -1)  # of iterations and latents
    assert torch.equal(put_back(several, places)[:, 1, 4], still.values[..., 0])


def test_places_are_read_on_any_grid_and_only_where_positions_say_them():
    grid = (3, 5, 4)
    positions = fourier_features(grid_coordinates(grid), 2, list(grid)).float()
    array = ByteArray(torch.arange(60.0)[None, :, None], positions, grid)
    assert places_of(array) is None
    order = torch.randperm(60)
    places = places_of(array.permute(order))
    assert places is not None
    assert torch.equal(places, order)
    assert places_of(ByteArray(array.values, torch.randn(60, 7), grid)) is None  # no coordinates
    assert places_of(ByteArray(array.values, positions, None)) is None  # no grid


@pytest.mark.parametrize("permutation", ["none", "per_example"])
def test_the_attention_of_every_latent_adds_up_to_one(permutation):
    task, samples = classified(Digits(permutation=permutation))
    maps = attention_of(task.backbone, samples, 1)["image"]
    assert maps.shape == (2, 6, 64)
    assert np.abs(maps.mean(axis=2) - 1).max() < 1e-5  # 1 is uniform


@pytest.mark.parametrize("permutation", ["none", "fixed", "per_example"])
def test_a_changed_pixel_changes_its_own_attention_and_no_others(permutation):
    task, samples = classified(Digits(permutation=permutation))
    before = attention_of(task.backbone, samples, 0)["image"][0]  # of the first cross-attend, whose latents are fixed
    samples.compact["image"][0, 2, 5] += 90
    changed = samples.data.flatten(samples.compact)
    samples.batch.inputs["image"] = changed.inputs["image"]
    ratio = attention_of(task.backbone, samples, 0)["image"][0] / before
    others = np.delete(ratio, 2 * 8 + 5, axis=1)
    assert np.ptp(others, axis=1).max() < 1e-5  # softmax scales them alike
    assert np.abs(ratio[:, 2 * 8 + 5] - others[:, 0]).min() > 1e-4


def test_the_most_different_latents_are_one_of_each_kind():
    kinds = np.eye(3)[[0, 0, 1, 0, 2, 1]]
    noise = np.random.default_rng(0).uniform(0, 0.01, (6, 3))
    chosen = most_different(kinds + noise, 3)
    assert sorted(kinds[chosen].argmax(axis=1)) == [0, 1, 2]
    assert most_different(kinds, 9) == list(range(6))


@pytest.mark.parametrize("permutation", ["none", "fixed", "per_example"])
def test_the_gradient_of_one_element_lies_on_its_pixel(permutation):
    _, samples = classified(Digits(permutation=permutation))
    places = places_of(samples.batch.inputs["image"])
    found = gradients(samples, lambda inputs: 7 * inputs["image"].values[:, 11, 0])["image"]
    assert found.shape == (3, 8, 8)
    for sample in range(3):
        at = 11 if places is None else int(places[11] if places.dim() == 1 else places[sample, 11])
        wanted = np.zeros(64)
        wanted[at] = 7 / 96  # pixels are divided by 96
        assert np.allclose(found[sample].ravel(), wanted)


def test_a_perceivers_gradient_is_what_a_small_change_does():
    task, samples = classified(Digits())
    task.double(), samples.data.flatten.double()
    found = gradients(samples, lambda inputs: task(inputs)[:, 3])["image"]

    def score(image: Tensor) -> Tensor:
        return task(samples.data.flatten({**samples.compact, "image": image.double()}).inputs)[:, 3]

    step = torch.zeros(8, 8, dtype=torch.float64)
    step[4, 2] = 0.01
    image = samples.compact["image"].double()
    difference = (score(image + step) - score(image - step)) / 0.02
    assert np.allclose(found[:, 4, 2], difference.abs().detach().numpy(), rtol=1e-4)


def test_a_probe_of_a_frozen_backbone_has_importance(tmp_path):
    data = Digits()
    task = LinearProbe(data.spec, small_perceiver).eval()
    assert draw_importance(task, load_samples(task, data, "test", 2), tmp_path, "t")


def test_a_patch_of_a_video_shines_on_its_own_pixels_of_the_frames_shown():
    raw = torch.zeros(1, 8, 4, 6, 3, dtype=torch.uint8)
    patches = GridModality((8, 4, 6), 3, 2, patch=(2, 2, 3))
    view = VIEWS[patches.spec.kind](patches.spec, raw, patches(raw).values)
    assert isinstance(view, Video)
    weights = np.zeros((4, 2, 2))
    weights[1, 0, 1] = 1.0  # frames 2 and 3, rows 0 and 1, columns 3 to 5
    laid = view.lay(weights)
    assert laid.shape == (4, 8 * 6 + 7 * 2)
    wanted = np.zeros((4, 62))
    for frame in (2, 3):
        wanted[:2, 8 * frame + 3 : 8 * frame + 6] = 1.0
    assert np.array_equal(np.nan_to_num(laid), wanted)
    pixels = np.full((4, 62, 3), 0.5)
    dark, lit = shine(pixels, np.where(np.isnan(laid), np.nan, 0.0), 1.0), shine(pixels, laid, 1.0)
    assert np.array_equal((dark != lit).any(axis=2), wanted == 1)


def test_weights_of_patches_cover_their_cells():
    assert stretch(np.array([[1, 2], [3, 4]]), (4, 2)).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]


def test_letters_stand_at_their_first_byte():
    assert letters("aй\nb".encode()) == [(0, "a"), (1, "й"), (3, "↵"), (4, "b")]
    assert letters(b"a\xd0") == [(0, "a"), (1, "\ufffd")]  # cut in the middle of a letter


def test_half_of_a_field_lies_in_so_many_pixels():
    assert half(np.array([[5.0, 1.0], [1.0, 1.0]])) == 1
    assert half(np.ones((4, 4))) == 8


BACKBONES = {
    "lambda_resnet": partial(LambdaResNet, depth=26, stages="CLLL", scope=None, key_depth=4, heads=2),
    "lambda_net": partial(LambdaNet, widths=(16, 16), blocks_per_stage=1, key_depth=4, heads=2),
    "resnet": partial(ResNet, name="resnet18"),
    "vit": partial(ViT, name="vit_tiny_patch16_224", patch=2, depth=1),
    "transformer": partial(Transformer, dim=16, depth=1, heads=2),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_on_a_picture_has_importance_and_receptive_fields(name, tmp_path):
    task, samples = classified(Digits(), backbone=BACKBONES[name])
    written = draw_importance(task, samples, tmp_path, "t") + draw_receptive_fields(task, samples, tmp_path, "t")
    assert [path.name for path in written] == ["importance_image.png", "receptive_field_image.png"]
    assert all(path.is_file() for path in written)
