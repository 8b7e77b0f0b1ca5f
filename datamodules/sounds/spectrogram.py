"""Log-mel spectrograms, computed on the device, and SpecAugment, drawn from the random numbers of each sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.byte_array import Batch, ByteArray, ModalitySpec
from ..core.datamodule import Split
from ..core.flatten import Flatten
from ..core.positions import axis_features, fourier_channels, grid_features
from ..core.random import randint

SCALE = 2.0**15  # int16 to [-1, 1)
FLOOR = 1e-6  # keeps the logarithm of silence finite; about the power of the least significant bit


class LogMel(nn.Module):
    """Turns sound (B, samples) int16 into frames x mels elements of one channel, time first, with hops of samples / frames.

    The Perceiver's 4,800 elements of an AudioSet clip are 60 frames of 80 mels here: 1.28 s at 48 kHz with a hop of 1,024
    samples and a window of 2,048. The paper only gives their number.

    Args:
        samples: length of the sound.
        rate: samples per second.
        frames: frames of the spectrogram; must divide samples.
        mels: mel bands.
        bands: frequencies per axis (time and mel) of the Fourier features.
        mean: log power becomes (log power - mean) / std.
        std: see mean.
    """

    def __init__(
        self, samples: int, rate: int, frames: int, mels: int, bands: int, mean: float = -6.0, std: float = 4.0
    ) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        if samples % frames:
            raise ValueError(f"{samples} samples are not divisible into {frames} frames")
        hop = samples // frames
        self.samples, self.mean, self.std = samples, mean, std
        # padding with half a hop at both ends gives exactly `frames` windows of two hops
        self.mel = MelSpectrogram(
            rate, n_fft=2 * hop, hop_length=hop, pad=hop // 2, n_mels=mels, center=False, normalized=True
        )
        grid = (frames, mels)
        self.spec = ModalitySpec(
            channels=1,
            position_channels=fourier_channels(2, bands),
            elements=frames * mels,
            grid=grid,
            coordinates=2,
            kind="spectrogram",
            rate=rate / hop,
        )
        self.register_buffer("axes", axis_features(grid, bands), persistent=False)
        self.register_buffer("positions", grid_features(self.axes, grid), persistent=False)

    def forward(self, raw: Tensor) -> ByteArray:
        if raw.shape[1:] != (self.samples,):
            raise ValueError(f"expected (B, {self.samples}), got {tuple(raw.shape)}")
        power = self.mel(raw.float() / SCALE).transpose(1, 2)  # (B, frames, mels)
        values = ((power + FLOOR).log() - self.mean) / self.std
        return ByteArray(values.flatten(1)[..., None], self.positions, self.spec.grid, axes=self.axes)


def spec_augment(frames: int, mels: int, widest: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws the mask of SpecAugment (Park et al. 2019): (frames, mels) bool, True in two bands of frames and two of mels.

    Args:
        frames: frames of the spectrogram.
        mels: mel bands of the spectrogram.
        widest: largest width of a band, in frames and in mels.
        generator: source of randomness.
    """
    hidden = torch.zeros(frames, mels, dtype=torch.bool)
    for axis, (length, most) in enumerate(zip((frames, mels), widest, strict=True)):
        for _ in range(2):
            width = randint(min(most, length) + 1, generator)
            hidden.narrow(axis, randint(length - width + 1, generator), width).fill_(True)
    return hidden


class FlattenAugmented(Flatten):
    """Flatten, then set the audio values marked in the batch's `hidden` (B, frames, mels) to 0, which is about the mean."""

    def forward(self, compact: dict) -> Batch:
        batch = super().forward(compact)
        if "hidden" not in compact:
            return batch
        audio = batch.inputs["audio"]
        values = audio.values.masked_fill(compact["hidden"].flatten(1)[..., None], 0)
        return replace(batch, inputs={**batch.inputs, "audio": replace(audio, values=values)})


class HidingSplit(Split):
    """Adds the mask of SpecAugment to each sample of a split: `hidden` (frames, mels) bool."""

    def __init__(self, split: Split, frames: int, mels: int, widest: tuple[int, int]) -> None:
        self.split, self.keys = split, split.keys
        self.frames, self.mels, self.widest = frames, mels, widest

    def open(self) -> None:
        self.split.open()

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        hidden = spec_augment(self.frames, self.mels, self.widest, generator)
        return {**self.split.load(index, generator), "hidden": hidden}
