"""Pictures: decoded to RGB, and cut to the views that models are trained and tested on. All are (H, W, 3) uint8."""

import io
import math

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from ..core.errors import BadSampleError

CENTRE = 224 / 256  # of the short side, that models are tested on (Perceiver, appendix A)
LEAST_AREA, RATIO, TRIES = 0.08, (3 / 4, 4 / 3), 10  # Inception's crop: Szegedy et al. 2015, section 6


def decode_image(content: bytes) -> Tensor:
    """A picture file as (H, W, 3); grey, CMYK, palette and transparent ones are converted.

    Raises BadSampleError if it cannot be decoded.
    """
    if content[:2] == b"\xff\xd8":  # JPEG, whatever the file is called
        try:
            return torch.from_numpy(simplejpeg.decode_jpeg(content))
        except ValueError:
            pass  # CMYK and some odd ones are read by Pillow alone; its reason is in plain words
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.mode == "P":
                picture = picture.convert("RGBA")
            return torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8).reshape(
                picture.height, picture.width, 3
            )
    except Exception as error:  # Pillow's readers raise what they like
        raise BadSampleError(f"cannot be decoded: {error}") from error


def encode_jpeg(picture: Tensor, quality: int = 95) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "jpeg", quality=quality)
    return file.getvalue()


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """Bicubic, with antialiasing."""
    if picture.shape[:2] == (height, width):
        return picture
    planes = picture.permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0)


def shrink(picture: Tensor, short_side: int) -> Tensor:
    """Scaled so that the short side has this length, if it is longer."""
    scale = short_side / min(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(short_side, round(length * scale)) for length in picture.shape[:2])
    return resize(picture, height, width)


def evaluation_crop(picture: Tensor, side: int) -> Tensor:
    """The central square of CENTRE of the short side, scaled to (side, side)."""
    height, width, _ = picture.shape
    size = max(1, round(CENTRE * min(height, width)))
    top, left = (height - size) // 2, (width - size) // 2
    return resize(picture[top : top + size, left : left + size], side, side)


def inception_box(
    height: int, width: int, least_area: float, generator: torch.Generator
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a box of random area, shape and place; None where none fits."""
    for _ in range(TRIES):
        area = height * width * uniform(least_area, 1, generator)
        ratio = math.exp(uniform(math.log(RATIO[0]), math.log(RATIO[1]), generator))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return draw(height - h + 1, generator), draw(width - w + 1, generator), h, w
    return None


def inception_crop(picture: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A rectangle of random area, shape and place, scaled to (side, side); the evaluation crop where none fits."""
    height, width, _ = picture.shape
    box = inception_box(height, width, LEAST_AREA, generator)
    if box is None:
        return evaluation_crop(picture, side)
    top, left, h, w = box
    return resize(picture[top : top + h, left : left + w], side, side)


def random_flip(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Left to right, for one picture in two."""
    return picture.flip(1) if draw(2, generator) else picture


def rand_augment(picture: Tensor, layers: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """torchvision's RandAugment (Cubuk et al. 2020): `layers` random operations of `magnitude`, 0 to 30."""
    from torchvision.transforms.v2 import RandAugment

    seed = int(draw_seed(generator))
    with torch.random.fork_rng(devices=[]):  # it draws from the global generator alone
        torch.default_generator.manual_seed(seed)
        # of a Pillow image, since its operations are half as fast again as those on tensors
        augmented = RandAugment(layers, magnitude, fill=[128.0] * 3)(Image.fromarray(picture.numpy()))
    return torch.from_numpy(np.array(augmented))


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def draw(count: int, generator: torch.Generator) -> int:
    """A number from 0 to count - 1."""
    return int(torch.randint(count, (), generator=generator))


def draw_seed(generator: torch.Generator) -> Tensor:
    """A 63-bit seed: () int64."""
    return torch.randint(2**63 - 1, (), generator=generator)
