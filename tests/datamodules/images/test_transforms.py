"""Decoding and views of pictures: odd files, sizes, and whose random numbers are used."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import BadSampleError
from datamodules.images import transforms


def picture() -> Image.Image:
    """Smooth noise, 60 x 80."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


def test_a_jpeg_whose_header_declares_billions_of_pixels_is_refused_at_once():
    content = bytearray(transforms.encode_jpeg(torch.zeros(16, 16, 3, dtype=torch.uint8)))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = b"\xff\xdc\xff\xdc"
    with pytest.raises(BadSampleError, match=r"cannot be decoded: Image size \(4290250000 pixels\) exceeds limit"):
        transforms.decode_image(bytes(content))


def test_augmenting_leaves_the_global_generator_alone():
    image = torch.from_numpy(np.array(picture()))
    before = torch.get_rng_state()
    transforms.rand_augment(image, 2, 9, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_flip_mirrors_left_and_right_of_about_one_picture_in_two():
    image = torch.arange(3 * 4 * 2).reshape(3, 4, 2)
    views = [transforms.random_flip(image, torch.Generator().manual_seed(seed)) for seed in range(100)]
    mirrored = [torch.equal(view, image[:, [3, 2, 1, 0]]) for view in views]
    assert all(flipped or torch.equal(view, image) for flipped, view in zip(mirrored, views, strict=True))
    assert 30 < sum(mirrored) < 70


def test_evaluation_takes_the_centre_of_224_of_256_of_the_short_side():
    frame = torch.zeros(256, 300, 3, dtype=torch.uint8)
    frame[16:240, 38:262] = torch.randint(0, 256, (224, 224, 3), dtype=torch.uint8)
    assert torch.equal(transforms.evaluation_crop(frame, 224), frame[16:240, 38:262])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 7), (224, 224)])
def test_pictures_of_any_size_give_views_of_one_size(shape):
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    for seed in range(5):
        assert transforms.inception_crop(image, 24, torch.Generator().manual_seed(seed)).shape == (24, 24, 3)
    assert transforms.evaluation_crop(image, 24).shape == (24, 24, 3)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "jpeg"), ("L", "jpeg"), ("CMYK", "jpeg"), ("RGBA", "png"), ("P", "png"), ("LA", "png")]
)
def test_pictures_that_are_not_rgb_are_converted(mode, kind):
    original = picture().convert(mode)
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(saved(original, kind))).convert("RGB")))
    decoded = transforms.decode_image(saved(original, kind))
    assert decoded.shape == (60, 80, 3)
    assert decoded.dtype == torch.uint8
    assert (decoded.int() - expected.int()).abs().float().mean() < 2
