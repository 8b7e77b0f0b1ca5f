"""Handmade features of byte arrays, which need no training: what a learned model must beat.

Each takes the modality's spec and a byte array, and returns an array (B, F).
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules import ByteArray, ModalitySpec, UserError

WINDOW, MELS = 0.032, 40  # seconds, bands
FLOOR = 1e-6  # of power: keeps the logarithm of silence finite
ORIENTATIONS, CELLS = 9, 7  # of gradients; cells along the shorter side of an image
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
N_GRAMS, HASHED = (1, 3), 2**14  # lengths; columns that n-grams are hashed to
PIXEL_CHANNELS = 4  # more are patches


def log_mel_statistics(spec: ModalitySpec, sound: ByteArray) -> np.ndarray:
    """Mean and standard deviation over time of every log-mel band, of sound or of a spectrogram: F = 2 x bands."""
    if spec.kind == "spectrogram":
        bands = sound.values.reshape(len(sound.values), *(sound.grid or ()))
    else:
        from torchaudio.transforms import MelSpectrogram  # takes a second

        rate = round(spec.rate or 8000)
        size = 2 ** round(np.log2(WINDOW * rate))
        mel = MelSpectrogram(rate, n_fft=size, hop_length=size // 2, n_mels=MELS, normalized=True)
        wave = sound.values.flatten(1).float()
        bands = (mel.to(wave.device)(wave) + FLOOR).log().transpose(1, 2)
    std, mean = torch.std_mean(bands.float(), dim=1, correction=0)
    return to_numpy(torch.cat([mean, std], dim=1))


def shape_statistics(spec: ModalitySpec, points: ByteArray) -> np.ndarray:
    """25 numbers of a cloud: extent, spread, skewness and kurtosis along each axis, the principal variances, and quantiles
    of the height and of the distance from the centre."""
    xyz = points.values.double()
    std, mean = torch.std_mean(xyz, dim=1, correction=0)
    scaled = (xyz - mean[:, None]) / std[:, None].clamp(min=1e-9)
    extent = xyz.amax(dim=1) - xyz.amin(dim=1)
    centred = xyz - mean[:, None]
    principal = torch.linalg.eigvalsh(centred.transpose(1, 2) @ centred / xyz.shape[1])
    quantiles = torch.tensor(QUANTILES, dtype=xyz.dtype, device=xyz.device)
    height, distance = (each.quantile(quantiles, dim=1).T for each in (xyz[..., 1], centred.norm(dim=2)))
    parts = [extent, std, scaled.pow(3).mean(dim=1), scaled.pow(4).mean(dim=1), principal, height, distance]
    return to_numpy(torch.cat(parts, dim=1))


def hog(spec: ModalitySpec, image: ByteArray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal & Triggs 2005): 9 directions without sign in square cells, normalised over
    blocks of 2 x 2 cells. Gradients are those of the mean over the channels."""
    pixels = grey_pixels(spec, image)
    batch, rows, columns = pixels.shape
    down, right = torch.gradient(pixels, dim=(1, 2))
    angle = torch.atan2(down, right).remainder(torch.pi) / torch.pi * ORIENTATIONS
    first, share = angle.floor().long() % ORIENTATIONS, angle.frac()
    strength = torch.hypot(down, right)
    votes = strength.new_zeros(batch, rows, columns, ORIENTATIONS)
    for which, weight in ((first, 1 - share), ((first + 1) % ORIENTATIONS, share)):
        votes.scatter_add_(3, which[..., None], (weight * strength)[..., None])
    side = max(2, min(rows, columns) // CELLS)
    cells = torch.nn.functional.avg_pool2d(votes.permute(0, 3, 1, 2), side)
    blocks = torch.nn.functional.unfold(cells, 2)  # (B, 4 x directions, blocks)
    return to_numpy(torch.nn.functional.normalize(blocks, dim=1).flatten(1))


def grey_pixels(spec: ModalitySpec, image: ByteArray) -> Tensor:
    """The mean over the channels of every pixel (B, H, W), also of square patches of grey or RGB pixels."""
    values, (rows, columns) = image.values.float(), spec.grid or (1, 1)
    if spec.channels <= PIXEL_CHANNELS:
        return values.mean(dim=2).reshape(len(values), rows, columns)
    colours = 1 if isqrt(spec.channels) ** 2 == spec.channels else 3  # three times a square number is none
    side = isqrt(spec.channels // colours)
    if colours * side**2 != spec.channels:
        raise UserError("the baseline hog needs pixels or square patches of them: set data.patch to one number")
    patches = values.reshape(len(values), rows, columns, side, side, colours).mean(dim=5)
    return patches.transpose(2, 3).reshape(len(values), rows * side, columns * side)


def byte_n_grams(spec: ModalitySpec, text: ByteArray) -> Any:
    """How often each sequence of one to three bytes occurs, hashed into 2^14 columns and scaled to norm 1; sparse."""
    from sklearn.feature_extraction.text import HashingVectorizer

    symbols = text.values.argmax(dim=2).cpu().numpy().astype(np.uint8)
    real = np.ones(symbols.shape, bool) if text.mask is None else text.mask.cpu().numpy()
    texts = [row[kept].tobytes().decode("latin-1") for row, kept in zip(symbols, real, strict=True)]
    hashing = HashingVectorizer(
        analyzer="char", ngram_range=N_GRAMS, n_features=HASHED, alternate_sign=False, lowercase=False
    )
    return hashing.transform(texts)


def nothing(spec: ModalitySpec, array: ByteArray) -> np.ndarray:
    """No features."""
    return np.zeros((len(array.values), 0))


def to_numpy(features: Tensor) -> np.ndarray:
    return features.double().cpu().numpy()
