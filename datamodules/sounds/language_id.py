"""Spoken telephone prompts: which language is it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..clips.base import window_keys, window_place
from ..clips.windows import AudioWindow
from ..core.byte_array import DataSpec
from ..core.datamodule import Split, SplitName
from ..core.errors import BadSampleError
from ..core.flatten import Flatten, GridModality
from ..images.transforms import uniform
from ..storage import shards
from ..storage.sharded import ShardedData
from .sound import read_sound, sound_window

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
RATE, SAMPLES, PATCH = 8000, 16_384, 128  # 2.048 s


class PromptSplit(Split):
    """Prompts in shards: wav and json with `label`. In training one window of each at random, else `windows` of each."""

    def __init__(self, reader: shards.ShardReader, training: bool, windows: int) -> None:
        self.reader, self.training, self.windows = reader, training, 1 if training else windows
        self.keys = window_keys(reader.keys, self.windows)

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        number, window = divmod(index, self.windows)
        files = self.reader.read(number)
        place = uniform(0, 1, generator) if self.training else window_place(window, self.windows)
        try:
            sound = sound_window(read_sound(files["wav"], RATE), SAMPLES, place)
        except BadSampleError as error:
            raise BadSampleError(f"{self.reader.keys[number]}.wav {error}") from error
        return {"audio": torch.from_numpy(sound), "target": torch.tensor(json.loads(files["json"])["label"])}


class LanguageId(ShardedData):
    """Which of five languages a telephone prompt is spoken in: Asterisk's 2,831 core sounds, 131 minutes, 8 kHz.

    Most prompts exist in every language, so the split is by prompt: none is on both sides. Each language has one speaker
    (English and Spanish the same one), so that a model may learn voices and recordings instead of languages: say so
    beside every result. Logistic regression on the mean and deviation of log-mel bands has 95.2 %. Fifty of the prompts are
    silence. Licence: CC BY 3.0 and CC BY-SA 3.0.

    audio: a window of 2.048 s, 128 elements of 128 samples; half of the prompts are shorter and stand in silence.

    data_dir: the folder of the shards; `python -m datamodules.prepare language_id` makes them.
    bands: frequencies of the Fourier features.
    eval_clips: windows of each val and test prompt, spread evenly over it, whose scores are averaged; 1 is the middle.
    """

    prepared_as = "language_id"

    def __init__(
        self,
        data_dir: str = "data/language_id",
        bands: int = 32,
        eval_clips: int = 1,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, on_bad_sample, max_bad_share)
        self.data_dir, self.eval_clips = Path(data_dir), eval_clips
        self.audio = AudioWindow(SAMPLES, RATE)
        audio = GridModality((SAMPLES,), 1, bands, patch=(PATCH,), std=3000.0)
        self.flatten = Flatten({"audio": audio})
        self.spec = DataSpec({"audio": audio.spec}, "single_label", tuple(LANGUAGES.values()))

    def make_split(self, name: SplitName) -> Split:
        return PromptSplit(self.reader(name), training=name == "train", windows=self.eval_clips)
