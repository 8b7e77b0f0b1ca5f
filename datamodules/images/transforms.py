"""Decoding, resizing, cropping and augmentation of images. All images are (H, W, 3) uint8."""

import io
import math

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..core.errors import BadSampleError, reason
from ..core.random import randint, random_seed, uniform

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)  # of an image, more than which Pillow refuses too
CENTRE = 224 / 256  # share of the short side in the evaluation crop (Perceiver, appendix A)
MIN_AREA, RATIO, TRIES = 0.08, (3 / 4, 4 / 3), 10  # Inception crop: Szegedy et al. 2015, section 6


def decode_image(content: bytes) -> Tensor:
    """Decodes an image file to RGB. Grey, CMYK, palette and transparent images are converted.

    Raises:
        BadSampleError: if it cannot be decoded.
    """
    if content[:2] == b"\xff\xd8":  # JPEG, whatever the file name says
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(content)
            if int(height) * int(width) <= MAX_PIXELS:  # a damaged header may declare billions, which Pillow refuses
                return torch.from_numpy(simplejpeg.decode_jpeg(content))
        except ValueError:
            pass  # only Pillow reads CMYK and some unusual files, and its error messages are readable
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode == "P":
                image = image.convert("RGBA")
            return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).reshape(
                image.height, image.width, 3
            )
    except UnidentifiedImageError as error:
        raise BadSampleError("cannot be decoded: it is not an image") from error
    except Exception as error:  # Pillow's readers raise all kinds of exceptions
        raise BadSampleError(f"cannot be decoded: {reason(error)}") from error


def upright(image: Tensor, content: bytes) -> Tensor:
    """Turns and mirrors a decoded image (H, W, 3) as the EXIF data in its file say that it is shown."""
    if b"Exif" not in content[:4096] and b"eXIf" not in content:
        return image
    with Image.open(io.BytesIO(content)) as opened:
        orientation = opened.getexif().get(0x0112, 1)
    if orientation in (5, 6, 7, 8):  # rows and columns change places
        image = image.transpose(0, 1)
    flips = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(orientation)
    return image.flip(flips) if flips else image


def encode_jpeg(image: Tensor, quality: int = 95) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.numpy()).save(file, "jpeg", quality=quality)
    return file.getvalue()


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resizes an image with bicubic interpolation and antialiasing."""
    if image.shape[:2] == (height, width):
        return image
    planes = image.permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0)


def shrink(image: Tensor, short_side: int) -> Tensor:
    """Scales an image down so that its short side has this length."""
    scale = short_side / min(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(short_side, round(length * scale)) for length in image.shape[:2])
    return resize(image, height, width)


def evaluation_crop(image: Tensor, side: int) -> Tensor:
    """The central square with CENTRE of the short side, resized to (side, side)."""
    height, width, _ = image.shape
    size = max(1, round(CENTRE * min(height, width)))
    top, left = (height - size) // 2, (width - size) // 2
    return resize(image[top : top + size, left : left + size], side, side)


def inception_box(
    height: int, width: int, min_area: float, generator: torch.Generator
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a box of random area, aspect ratio and position; None if no sampled box fits."""
    for _ in range(TRIES):
        area = height * width * uniform(min_area, 1, generator)
        ratio = math.exp(uniform(math.log(RATIO[0]), math.log(RATIO[1]), generator))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return randint(height - h + 1, generator), randint(width - w + 1, generator), h, w
    return None


def inception_crop(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A crop of random area, aspect ratio and position, resized to (side, side); the evaluation crop if none fits."""
    height, width, _ = image.shape
    box = inception_box(height, width, MIN_AREA, generator)
    if box is None:
        return evaluation_crop(image, side)
    top, left, h, w = box
    return resize(image[top : top + h, left : left + w], side, side)


def random_flip(image: Tensor, generator: torch.Generator) -> Tensor:
    """Flips the image left to right with probability 0.5."""
    return image.flip(1) if randint(2, generator) else image


def rand_augment(image: Tensor, layers: int, magnitude: int, generator: torch.Generator) -> Tensor:
    """torchvision's RandAugment (Cubuk et al. 2020): `layers` random operations of strength `magnitude`, 0 to 30."""
    from torchvision.transforms.v2 import RandAugment

    seed = int(random_seed(generator))
    with torch.random.fork_rng(devices=[]):  # torchvision only draws from the global generator
        torch.default_generator.manual_seed(seed)
        # on a Pillow image, whose operations are 1.5 times as fast as those on tensors
        augmented = RandAugment(layers, magnitude, fill=[128.0] * 3)(Image.fromarray(image.numpy()))
    return torch.from_numpy(np.array(augmented))
