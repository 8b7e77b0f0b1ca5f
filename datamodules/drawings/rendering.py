"""One SVG in three encodings: pixels, points along the outline, and the bytes of its paths."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from ..core.errors import BadSampleError

OUTLINE_SIDE = 96  # pixels of the rendering that outlines are traced on
PATH = re.compile(r'\bd="([^"]+)"')


def svg(body: str, left: float, top: float, width: float, height: float) -> str:
    """A whole document of the body of an icon, drawn in black."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="black" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def render(document: str, side: int) -> np.ndarray:
    """Pixels (side, side, 3) uint8, on white. A drawing that is not square is centred."""
    from PIL import Image
    from resvg_py import svg_to_bytes

    try:
        png = svg_to_bytes(svg_string=document, width=side, skip_system_fonts=True)
        drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    except Exception as error:  # of the renderer: a string, whatever is wrong
        raise BadSampleError(f"cannot be drawn ({' '.join(str(error).split())[:120]})") from error
    if max(drawn.size) > side:
        drawn.thumbnail((side, side), Image.Resampling.BOX)
    page = Image.new("RGBA", (side, side), "white")
    page.alpha_composite(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    return np.asarray(page.convert("RGB"))


def outline(document: str, points: int) -> np.ndarray:
    """Points (points, 2) float32 along the outlines, evenly by length, x to the right and y down in [-1, 1].

    Raises:
        BadSampleError: there is nothing to trace.
    """
    from contourpy import contour_generator

    ink = 255.0 - render(document, OUTLINE_SIDE).min(axis=2)
    lines: list[Any] = list(contour_generator(z=np.pad(ink, 1)).lines(127.5))
    if not lines:
        raise BadSampleError("has no outline")
    starts = np.concatenate([line[:-1] for line in lines])
    ends = np.concatenate([line[1:] for line in lines])
    lengths = np.hypot(*(ends - starts).T)
    along = lengths.cumsum()
    where = (np.arange(points) + 0.5) / points * along[-1]
    piece = np.searchsorted(along, where).clip(max=len(along) - 1)
    share = 1 - (along[piece] - where) / np.maximum(lengths[piece], 1e-12)
    found = starts[piece] + share[:, None] * (ends - starts)[piece]
    return ((found - 1 + 0.5) / OUTLINE_SIDE * 2 - 1).astype(np.float32)


def path_bytes(body: str) -> bytes:
    """The `d` attributes of the paths; of a drawing without paths, its whole body."""
    return (" ".join(PATH.findall(body)) or body).encode()
