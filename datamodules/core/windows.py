"""Windows of one sample, such as the crops of a clip that evaluation averages over, and their keys."""

from __future__ import annotations

import re

WINDOW_SUFFIX = re.compile(r"@\d{2,}$")


def window_keys(keys: list[str], windows: int) -> list[str]:
    """Keys of `windows` windows per sample: KEY@00, KEY@01, ...; the keys themselves for one window."""
    return keys if windows == 1 else [f"{key}@{window:02d}" for key in keys for window in range(windows)]


def sample_of(key: str) -> str:
    """The key of the sample that a window belongs to."""
    return WINDOW_SUFFIX.sub("", key)


def window_position(window: int, windows: int) -> float:
    """Relative position of a window in its sample, from 0 (first) to 1 (last). A single window is in the middle."""
    return 0.5 if windows == 1 else window / (windows - 1)
