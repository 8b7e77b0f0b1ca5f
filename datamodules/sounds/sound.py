"""Sound files and windows of them."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from ..core.errors import BadSampleError


def read_sound(content: bytes, rate: int) -> np.ndarray:
    """Reads the samples (S,) int16 of a mono sound file at `rate` Hz. Raises BadSampleError for any other file."""
    try:
        sound, found = soundfile.read(io.BytesIO(content), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise BadSampleError(f"cannot be decoded: {error.error_string}") from error
    if found != rate or sound.ndim != 1:
        raise BadSampleError(f"has {sound.ndim} channels at {found} Hz, expected one at {rate} Hz")
    return sound


def sound_window(sound: np.ndarray, samples: int, position: float) -> np.ndarray:
    """Takes the window at a relative position from 0 (first) to 1 (last). A shorter sound is placed there in silence."""
    window = np.zeros(samples, np.int16)
    if len(sound) < samples:
        begin = round((samples - len(sound)) * position)
        window[begin : begin + len(sound)] = sound
    else:
        begin = round((len(sound) - samples) * position)
        window[:] = sound[begin : begin + samples]
    return window
