"""Damage to inputs: what each corruption does, on compact tensors of every kind."""

import pytest
import torch

from datamodules import ByteArray
from datamodules.core.flatten import GridModality
from src.backbones import Perceiver
from src.stress import corruptions
from src.stress.corruptions import OF_KIND, corruptions_of, dropped

IMAGE = GridModality((12, 10), channels=3, bands=2, mean=0.5, std=0.25)
VIDEO = GridModality((8, 12, 10), channels=3, bands=2, patch=(2, 2, 2))
SOUND = GridModality((96,), channels=1, bands=2, kind="audio")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("modality", "shape"), [(IMAGE, (2, 12, 10, 3)), (VIDEO, (2, 8, 12, 10, 3)), (SOUND, (2, 96))])
def test_every_corruption_keeps_the_shape_and_does_more_at_every_level(modality, shape):
    raw = torch.rand(shape, generator=generator())
    for corruption in corruptions_of(modality.spec, modality):
        if corruption.damage is None:
            continue
        drawn = (
            None
            if corruption.draw is None
            else torch.stack([corruption.draw(x, generator(i)) for i, x in enumerate(raw)])
        )
        changes = []
        for amount in corruption.amounts:
            found = corruption.damage(raw, drawn, amount, modality)
            assert found.shape == raw.shape
            assert modality(found).values.isfinite().all()
            changes.append(float((found - raw).abs().mean()))
        assert changes[0] > 0, corruption.name
        assert changes[-1] > changes[0], corruption.name


def test_blur_and_lower_rates_change_no_constant_and_keep_the_mean():
    constant = torch.full((1, 12, 10, 3), 0.3)
    torch.testing.assert_close(corruptions.blur(constant, None, 5, IMAGE), constant)
    raw = torch.rand(1, 96, generator=generator())
    torch.testing.assert_close(corruptions.averaged(raw, None, 8, SOUND).mean(), raw.mean())
    picture = torch.rand(1, 12, 10, 3, generator=generator())
    torch.testing.assert_close(corruptions.coarse(picture, None, 2, IMAGE).mean(), picture.mean())


def test_an_occlusion_covers_its_share_at_the_same_place_in_all_frames():
    raw = torch.ones(1, 8, 12, 10, 3)
    found = corruptions.occluded(raw, torch.tensor([[0.4, 0.9]]), 0.25, VIDEO)
    gone = (found == 0).all(dim=-1)
    assert gone[0, 0].sum() == 6 * 5
    assert (gone == gone[:, :1]).all()


def test_held_frames_repeat_the_first_of_their_group():
    raw = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 12, 10, 3)
    assert corruptions.held(raw, None, 3, VIDEO)[0, :, 0, 0, 0].tolist() == [0, 0, 0, 3, 3, 3, 6, 6]


def test_dropped_elements_are_exact_for_a_perceiver_and_nested(image_spec):
    array = image_spec.example_inputs(2)["image"].to(torch.float64)
    drawn = torch.tensor([[1], [2]])
    mild, hard = dropped(array, drawn, 0.25), dropped(array, drawn, 0.75)
    assert mild.mask is not None
    assert hard.mask is not None
    assert (~mild.mask).sum(dim=1).tolist() == [12, 12]
    assert (hard.mask <= mild.mask).all()
    model = Perceiver(image_spec, num_latents=4, latent_dim=16, self_heads=2).double().eval()
    for example in range(2):
        kept = hard.mask[example]
        shorter = ByteArray(array.values[example : example + 1, kept], array.positions[kept])
        torch.testing.assert_close(
            model({"image": hard.examples(slice(example, example + 1))}),
            model({"image": shorter}),
            rtol=1e-9,
            atol=1e-9,
        )


def test_a_cut_takes_the_points_on_one_side(set_spec):
    points = set_spec.example_inputs(1)["points"]
    found = corruptions.cut(points, torch.tensor([[1.0, 0.0, 0.0]]), 0.5)
    assert found.mask is not None
    x = points.values[0, :, 0]
    assert x[found.mask[0]].max() <= x[~found.mask[0]].min()


def test_every_kind_has_corruptions_and_names_tell_them_apart():
    for kind, found in OF_KIND.items():
        assert len({c.name for c in found}) == len(found) >= 1, kind
        assert all(list(c.amounts) == sorted(set(c.amounts)) for c in found)
