"""What pictures are made of: permuted elements put back exactly, attention that sums to one, gradients where they belong."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import datamodules
from datamodules import ByteArray, ByteArrayDataModule, DataSpec, Digits, TensorSplit
from datamodules.core.flatten import GridModality
from datamodules.core.positions import fourier_features, grid_coordinates
from datamodules.detection.coco import Coco
from datamodules.sounds.spectrogram import FlattenAugmented, LogMel
from src.backbones import LambdaNet, LambdaResNet, Perceiver, ResNet, Transformer, ViT
from src.pictures.attention import draw_attention, relative_attention, select_diverse
from src.pictures.permuted import original_indices, unpermute, unpermute_array
from src.pictures.receptive_fields import draw_importance, draw_receptive_fields, gradient_norms, half_area
from src.pictures.samples import draw_samples, load_samples
from src.pictures.views import VIEWS, Video, characters, overlay, upsample
from src.tasks import Classification, Detection, LinearProbe, Regression

SMALL_PERCEIVER = partial(
    Perceiver, num_latents=6, latent_dim=16, cross_attends=2, self_attends_per_block=1, self_heads=2
)


def classified(data: ByteArrayDataModule, count: int = 3, backbone=SMALL_PERCEIVER):
    kind = Regression if data.spec.task == "regression" else Classification
    task = kind(data.spec, backbone).eval()
    return task, load_samples(task, data, "test", count)


@pytest.mark.parametrize("permutation", ["fixed", "per_example"])
def test_permuted_pixels_are_put_back_exactly(permutation):
    plain, moved = (Digits(permutation=p) for p in ("none", permutation))
    refs = {"key": ["a", "b"], "target": torch.zeros(2), "weight": torch.ones(2), "order_seed": torch.tensor([3, 4])}
    refs["image"] = torch.randint(0, 256, (2, 8, 8), dtype=torch.uint8)
    still, permuted = (data.flatten(refs).inputs["image"] for data in (plain, moved))
    assert original_indices(still) is None
    places = original_indices(permuted)
    assert places is not None
    assert places.shape == ((64,) if permutation == "fixed" else (2, 64))
    assert not torch.equal(permuted.values, still.values)
    assert torch.equal(unpermute_array(permuted).values, still.values)
    assert torch.equal(unpermute(permuted.values[..., 0], places), still.values[..., 0])
    several = permuted.values[..., 0][:, None, None].expand(-1, 2, 5, -1)  # of iterations and latents
    assert torch.equal(unpermute(several, places)[:, 1, 4], still.values[..., 0])


def test_places_are_read_on_any_grid_and_only_where_positions_say_them():
    grid = (3, 5, 4)
    positions = fourier_features(grid_coordinates(grid), 2, list(grid)).float()
    array = ByteArray(torch.arange(60.0)[None, :, None], positions, grid)
    assert original_indices(array) is None
    order = torch.randperm(60)
    places = original_indices(array.permute(order))
    assert places is not None
    assert torch.equal(places, order)
    assert original_indices(ByteArray(array.values, torch.randn(60, 7), grid)) is None  # no coordinates
    assert original_indices(ByteArray(array.values, positions, None)) is None  # no grid


@pytest.mark.parametrize("permutation", ["none", "per_example"])
def test_the_attention_of_every_latent_adds_up_to_one(permutation):
    task, samples = classified(Digits(permutation=permutation))
    maps = relative_attention(task.backbone, samples, 1)["image"]
    assert maps.shape == (2, 6, 64)
    assert np.abs(maps.mean(axis=2) - 1).max() < 1e-5  # 1 is uniform


@pytest.mark.parametrize("permutation", ["none", "fixed", "per_example"])
def test_a_changed_pixel_changes_its_own_attention_and_no_others(permutation):
    task, samples = classified(Digits(permutation=permutation))
    before = relative_attention(task.backbone, samples, 0)["image"][0]  # first cross-attend: the latents are fixed
    samples.compact["image"][0, 2, 5] += 90
    changed = samples.data.flatten(samples.compact)
    samples.batch.inputs["image"] = changed.inputs["image"]
    ratio = relative_attention(task.backbone, samples, 0)["image"][0] / before
    others = np.delete(ratio, 2 * 8 + 5, axis=1)
    assert np.ptp(others, axis=1).max() < 1e-5  # softmax scales them alike
    assert np.abs(ratio[:, 2 * 8 + 5] - others[:, 0]).min() > 1e-4


class Pooling(nn.Module):
    """A backbone of someone else's: learned queries that read the elements once."""

    def __init__(self, data_spec, num_features: int = 8) -> None:
        super().__init__()
        self.num_features = num_features
        self.queries = nn.Parameter(torch.randn(3, num_features))
        self.embed = nn.LazyLinear(num_features)

    def weights(self, inputs: dict[str, ByteArray]) -> tuple[Tensor, Tensor]:
        elements = self.embed(inputs["image"].concat())
        return (self.queries @ elements.transpose(1, 2)).softmax(dim=-1), elements

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        weights, elements = self.weights(inputs)
        return weights @ elements

    def attention_maps(self, inputs: dict[str, ByteArray], iterations) -> dict[str, Tensor]:
        weights, _ = self.weights(inputs)
        return {"image": weights[:, None, None].expand(-1, len(iterations), -1, -1, -1).unflatten(-1, (8, 8)).detach()}

    def receptive_field(self) -> int:
        return 64


def test_any_backbone_with_attention_maps_has_all_pictures(tmp_path):
    task, samples = classified(Digits(), backbone=Pooling)
    assert relative_attention(task.backbone, samples, 1)["image"].shape == (1, 3, 64)
    written = draw_attention(task.backbone, samples, tmp_path, "t") + draw_receptive_fields(
        task, samples, tmp_path, "t"
    )
    assert [path.stem for path in written] == ["attention_image", "attention_image_latents", "receptive_field_image"]


def test_the_most_different_latents_are_one_of_each_kind():
    kinds = np.eye(3)[[0, 0, 1, 0, 2, 1]]
    noise = np.random.default_rng(0).uniform(0, 0.01, (6, 3))
    chosen = select_diverse(kinds + noise, 3)
    assert sorted(kinds[chosen].argmax(axis=1)) == [0, 1, 2]
    assert select_diverse(kinds, 9) == list(range(6))


@pytest.mark.parametrize("permutation", ["none", "fixed", "per_example"])
def test_the_gradient_of_one_element_lies_on_its_pixel(permutation):
    _, samples = classified(Digits(permutation=permutation))
    places = original_indices(samples.batch.inputs["image"])
    found = gradient_norms(samples, lambda inputs: 7 * inputs["image"].values[:, 11, 0])["image"]
    assert found.shape == (3, 8, 8)
    for sample in range(3):
        at = 11 if places is None else int(places[11] if places.dim() == 1 else places[sample, 11])
        wanted = np.zeros(64)
        wanted[at] = 7 / 96  # pixels are divided by 96
        assert np.allclose(found[sample].ravel(), wanted)


def test_a_perceivers_gradient_is_what_a_small_change_does():
    task, samples = classified(Digits())
    task.double(), samples.data.flatten.double()
    found = gradient_norms(samples, lambda inputs: task(inputs)[:, 3])["image"]

    def score(image: Tensor) -> Tensor:
        return task(samples.data.flatten({**samples.compact, "image": image.double()}).inputs)[:, 3]

    step = torch.zeros(8, 8, dtype=torch.float64)
    step[4, 2] = 0.01
    image = samples.compact["image"].double()
    difference = (score(image + step) - score(image - step)) / 0.02
    assert np.allclose(found[:, 4, 2], difference.abs().detach().numpy(), rtol=1e-4)


def test_a_probe_of_a_frozen_backbone_has_importance(tmp_path):
    data = Digits()
    task = LinearProbe(data.spec, SMALL_PERCEIVER).eval()
    assert draw_importance(task, load_samples(task, data, "test", 2), tmp_path, "t")


def test_a_patch_of_a_video_shines_on_its_own_pixels_of_the_frames_shown():
    raw = torch.zeros(1, 8, 4, 6, 3, dtype=torch.uint8)
    patches = GridModality((8, 4, 6), 3, 2, patch=(2, 2, 3))
    view = VIEWS[patches.spec.kind](patches.spec, raw, patches(raw).values)
    assert isinstance(view, Video)
    weights = np.zeros((4, 2, 2))
    weights[1, 0, 1] = 1.0  # frames 2 and 3, rows 0 and 1, columns 3 to 5
    laid = view.to_pixels(weights)
    assert laid.shape == (4, 8 * 6 + 7 * 2)
    wanted = np.zeros((4, 62))
    for frame in (2, 3):
        wanted[:2, 8 * frame + 3 : 8 * frame + 6] = 1.0
    assert np.array_equal(np.nan_to_num(laid), wanted)
    pixels = np.full((4, 62, 3), 0.5)
    dark, lit = overlay(pixels, np.where(np.isnan(laid), np.nan, 0.0), 1.0), overlay(pixels, laid, 1.0)
    assert np.array_equal((dark != lit).any(axis=2), wanted == 1)


def test_weights_of_patches_cover_their_cells():
    assert upsample(np.array([[1, 2], [3, 4]]), (4, 2)).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]


def test_letters_stand_at_their_first_byte():
    assert characters("aй\nb".encode()) == [(0, "a"), (1, "й"), (3, "↵"), (4, "b")]
    assert characters(b"a\xd0") == [(0, "a"), (1, "\ufffd")]  # cut in the middle of a letter


def test_half_of_a_field_lies_in_so_many_pixels():
    assert half_area(np.array([[5.0, 1.0], [1.0, 1.0]])) == 1
    assert half_area(np.ones((4, 4))) == 8


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


class Mel(Digits):
    """A sound of two tones as a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        mel = LogMel(6000, 8000, frames=20, mels=16, bands=2)
        self.flatten = FlattenAugmented({"audio": mel})
        self.spec = DataSpec({"audio": mel.spec}, "multi_label", ("low", "high"))

    def make_split(self, name):
        wave = (8000 * torch.sin(torch.arange(6000) / torch.tensor([[8.0], [2.0]]))).to(torch.int16)
        return TensorSplit(["low", "high"], {"audio": wave, "target": torch.eye(2)})


PUBLIC = [getattr(datamodules, name) for name in datamodules.__all__]  # which also imports them
DATA = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, ByteArrayDataModule)]
CONCRETE = [kind for kind in DATA if not kind.__abstractmethods__]


@pytest.mark.parametrize("kind", [*CONCRETE, Mel], ids=lambda kind: kind.__name__)
def test_every_data_set_gets_pictures(kind, tiny, tmp_path):
    data = kind(**({} if kind is Mel else tiny.options(kind.__name__)))
    data.prepare_data()
    if issubclass(kind, Coco):
        task = Detection(data.spec, partial(ResNet, name="resnet18"), channels=16, box_features=16, proposals=10)
        samples = load_samples(task.eval(), data, "test", 2)
    else:
        task, samples = classified(data, 2)
    draw_samples(samples, tmp_path / "samples.png", kind.__name__)
    written = [tmp_path / "samples.png"]
    if isinstance(task.backbone, Perceiver):
        written += draw_attention(task.backbone, samples, tmp_path, kind.__name__)
        assert len(written) == 1 + 2 * len(data.spec.modalities)
        written += draw_importance(task, samples, tmp_path, kind.__name__)
    assert all(path.stat().st_size > 2000 for path in written)


KINDS = {"measurements": "series", "pixels": "image", "picture": "image", "name": "text"}  # where the name is another


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_every_data_set_says_what_its_modalities_are_and_takes_the_options_of_loaders(kind, tiny):
    options = {"batch_size": 2, "num_workers": 0, "seed": 3, "on_bad_sample": "skip", "max_bad_share": 0.5}
    data = kind(**{**tiny.options(kind.__name__), **options})
    assert {name: getattr(data, name) for name in options} == options
    for name, spec in data.spec.modalities.items():
        assert spec.kind == KINDS.get(name, name)
        assert (spec.rate is not None) == (spec.kind in ("audio", "video"))
