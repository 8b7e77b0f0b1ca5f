"""Log-mel spectrograms find tones where and when they sound; SpecAugment hides bands, and only those."""

import numpy as np
import pytest
import torch

from datamodules.core.flatten import GridModality
from datamodules.core.order import sample_generator
from datamodules.sounds.spectrogram import FlattenAugmented, LogMel, spec_augment

SAMPLES, RATE = 61_440, 48_000


@pytest.fixture(scope="module")
def mel() -> LogMel:
    return LogMel(SAMPLES, RATE, frames=60, mels=80, bands=16)


def test_audioset_gives_4800_elements_of_one_channel(mel):
    array = mel(torch.randint(-3000, 3000, (2, SAMPLES), dtype=torch.int16))
    assert array.values.shape == (2, 4800, 1)
    assert (array.grid, array.positions.shape) == ((60, 80), (4800, 66))
    assert (mel.spec.elements, mel.spec.channels, mel.spec.position_channels) == (4800, 1, 66)
    assert array.values.std() < 3


@pytest.mark.parametrize("frequency", [440, 2000, 9000])
def test_a_tone_is_loudest_at_its_mel_while_it_sounds(mel, frequency):
    time = np.arange(SAMPLES) / RATE
    wave = 8000 * np.sin(2 * np.pi * frequency * time) * (time >= 0.64)
    image = mel(torch.from_numpy(wave.astype(np.int16))[None]).values.reshape(60, 80)
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    expected = 2595 * np.log10(1 + frequency / 700) / top * 81 - 1
    assert abs(image[45].argmax().item() - expected) <= 1
    assert (image[31:] > 0).any(dim=1).all()
    assert (image[:29] < 0).all()


def test_silence_is_finite(mel):
    values = mel(torch.zeros(1, SAMPLES, dtype=torch.int16)).values
    assert values.isfinite().all()
    assert values.std() < 1e-5


def test_spec_augment_hides_at_most_two_bands_each_way_by_the_generator_alone():
    seen = set()
    for n in range(50):
        hidden = spec_augment(60, 80, (10, 20), sample_generator(0, 0, str(n)))
        assert torch.equal(hidden, spec_augment(60, 80, (10, 20), sample_generator(0, 0, str(n))))
        frames, mels = hidden.all(dim=1), hidden.all(dim=0)
        assert frames.sum() <= 20
        assert mels.sum() <= 40
        assert torch.equal(hidden, frames[:, None] | mels)
        seen.add(int(hidden.sum()))
    assert len(seen) > 25
    assert not spec_augment(60, 80, (0, 0), sample_generator(0, 0, "a")).any()


def test_flatten_hides_what_the_batch_marks_and_nothing_else(mel):
    flatten = FlattenAugmented({"audio": mel, "image": GridModality((4, 4), 1, 2)})
    compact = {
        "audio": torch.randint(-3000, 3000, (2, SAMPLES), dtype=torch.int16),
        "image": torch.rand(2, 4, 4),
        "target": torch.zeros(2),
        "key": ["a", "b"],
        "weight": torch.ones(2),
    }
    hidden = torch.stack([spec_augment(60, 80, (10, 20), sample_generator(0, 0, key)) for key in "ab"])
    plain, augmented = flatten(compact).inputs, flatten({**compact, "hidden": hidden}).inputs
    assert torch.equal(plain["image"].values, augmented["image"].values)
    marked = hidden.flatten(1)[..., None]
    assert not augmented["audio"].values[marked].any()
    assert torch.equal(augmented["audio"].values[~marked], plain["audio"].values[~marked])
