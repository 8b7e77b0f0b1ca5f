"""One modality of a sample as a small file: a picture, a sound; or as a text."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules import ModalitySpec

from ..pictures.views import FRAMES, side_by_side, to_rgb

SIDE, LOSSLESS, FRAMES_IN_A_ROW = 96, 32 * 32, 4  # height in pixels; pixels of a picture that loses nothing
HEIGHT = 64  # of a picture on the page, about
SECONDS = 5  # of a sound
TEXT = 120  # characters


@dataclass(frozen=True)
class Medium:
    """One modality of a sample: a text, or a file in FOLDER, of a picture with the size that it is shown in."""

    kind: str
    name: str
    text: str = ""
    content: bytes = b""
    size: tuple[int, int] | None = None

    @property
    def file(self) -> str:
        suffix = "webp" if self.kind == "picture" else "mp3"
        return f"{hashlib.sha256(self.content).hexdigest()[:16]}.{suffix}"


def medium(name: str, spec: ModalitySpec, raw: np.ndarray) -> Medium | None:
    """A modality of a sample; None of a kind that pages do not show."""
    if spec.kind == "text":
        content = raw[raw >= 0].astype(np.uint8).tobytes()
        return Medium("text", name, text=content.decode("utf-8", "replace")[:TEXT])
    if spec.kind == "audio" and raw.ndim == 1 and spec.rate:
        return Medium("sound", name, content=mp3(raw, int(spec.rate)))
    if spec.kind == "image":
        return Medium("picture", name, **webp(to_rgb(raw)))
    if spec.kind == "video":
        frames = [to_rgb(raw[n]) for n in np.linspace(0, len(raw) - 1, min(FRAMES, len(raw))).round().astype(int)]
        rows = [frames[first : first + FRAMES_IN_A_ROW] for first in range(0, len(frames), FRAMES_IN_A_ROW)]
        strips = [side_by_side(row, 1.0) for row in rows if len(row) == len(rows[0])]
        return Medium(
            "picture", name, **webp(side_by_side([strip.swapaxes(0, 1) for strip in strips], 1.0).swapaxes(0, 1))
        )
    return None


def webp(pixels: np.ndarray) -> dict[str, Any]:
    """Pixels (H, W, 3) in [0, 1] as a small file, and the size that it is shown in."""
    from PIL import Image

    image = Image.fromarray((pixels * 255).round().astype(np.uint8))
    image.thumbnail((2 * SIDE, SIDE))
    content, (width, height) = io.BytesIO(), image.size
    image.save(content, "WEBP", lossless=width * height <= LOSSLESS, quality=60, method=6)
    zoom = max(1, HEIGHT // height)
    return {"content": content.getvalue(), "size": (zoom * width, zoom * height)}


def mp3(sound: np.ndarray, rate: int) -> bytes:
    """A sound (S,) as a small file."""
    import soundfile  # of the extra `audio`, as data with sounds

    content = io.BytesIO()
    soundfile.write(content, sound[: SECONDS * rate], rate, format="MP3", compression_level=0.9)
    return content.getvalue()
