"""Sound as a log-mel spectrogram, made on the device, and SpecAugment, drawn by the sample's own random numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.byte_array import Batch, ByteArray, ModalitySpec
from ..core.datamodule import Split
from ..core.flatten import Flatten
from ..core.positions import fourier_channels, fourier_features, grid_coordinates
from ..images.transforms import draw

SCALE = 2.0**15  # int16 to [-1, 1)
FLOOR = 1e-6  # keeps the logarithm of silence finite; about the power of the last bit


class LogMel(nn.Module):
    """(B, samples) int16 to frames x mels elements of one channel, a frame every samples / frames, row-major in time.

    Perceiver's 4,800 elements of an AudioSet clip are 60 frames of 80 mels here: 1.28 s at 48 kHz, a frame every 1,024
    samples over a window of 2,048. The paper gives their number alone.

    bands: frequencies per axis, time and mel, of the Fourier features.
    mean, std: log power becomes (log power - mean) / std.
    """

    def __init__(
        self, samples: int, rate: int, frames: int, mels: int, bands: int, mean: float = -6.0, std: float = 4.0
    ) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        if samples % frames:
            raise ValueError(f"{samples} samples do not divide into {frames} frames")
        hop = samples // frames
        self.samples, self.mean, self.std = samples, mean, std
        # with half a step of silence at both ends, windows of two steps are as many as the frames
        self.mel = MelSpectrogram(
            rate, n_fft=2 * hop, hop_length=hop, pad=hop // 2, n_mels=mels, center=False, normalized=True
        )
        grid = (frames, mels)
        self.spec = ModalitySpec(
            channels=1, position_channels=fourier_channels(2, bands), elements=frames * mels, grid=grid, coordinates=2
        )
        positions = fourier_features(grid_coordinates(grid), bands, list(grid))
        self.register_buffer("positions", positions.float(), persistent=False)

    def forward(self, raw: Tensor) -> ByteArray:
        if raw.shape[1:] != (self.samples,):
            raise ValueError(f"expected (B, {self.samples}), got {tuple(raw.shape)}")
        power = self.mel(raw.float() / SCALE).transpose(1, 2)  # (B, frames, mels)
        values = ((power + FLOOR).log() - self.mean) / self.std
        return ByteArray(values.flatten(1)[..., None], self.positions, self.spec.grid)


def spec_augment(frames: int, mels: int, widest: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Two bands of frames and two of mels to hide (SpecAugment, Park et al. 2019): (frames, mels) bool, True where hidden.

    widest: a band has from 0 to this many frames, or mels.
    """
    hidden = torch.zeros(frames, mels, dtype=torch.bool)
    for axis, (length, most) in enumerate(zip((frames, mels), widest, strict=True)):
        for _ in range(2):
            width = draw(min(most, length) + 1, generator)
            hidden.narrow(axis, draw(length - width + 1, generator), width).fill_(True)
    return hidden


class FlattenAugmented(Flatten):
    """Flatten, and then every audio value that the batch's `hidden` (B, frames, mels) marks becomes 0, about the mean."""

    def forward(self, compact: dict) -> Batch:
        batch = super().forward(compact)
        if "hidden" not in compact:
            return batch
        audio = batch.inputs["audio"]
        values = audio.values.masked_fill(compact["hidden"].flatten(1)[..., None], 0)
        return replace(batch, inputs={**batch.inputs, "audio": replace(audio, values=values)})


class HidingSplit(Split):
    """Adds to each sample of a split what SpecAugment hides of its spectrogram: `hidden` (frames, mels) bool."""

    def __init__(self, split: Split, frames: int, mels: int, widest: tuple[int, int]) -> None:
        self.split, self.keys = split, split.keys
        self.frames, self.mels, self.widest = frames, mels, widest

    def open(self) -> None:
        self.split.open()

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        hidden = spec_augment(self.frames, self.mels, self.widest, generator)
        return {**self.split.load(index, generator), "hidden": hidden}
