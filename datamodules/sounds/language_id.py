"""Language identification of spoken telephone prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.byte_array import DataSpec
from ..core.checks import check_counts
from ..core.datamodule import Split, SplitName
from ..core.errors import decoding
from ..core.flatten import Flatten, GridModality
from ..core.random import uniform
from ..core.windows import window_keys, window_position
from ..storage import shards
from ..storage.sharded import ShardedData
from .sound import read_sound, sound_window

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
RATE, SAMPLES, PATCH = 8000, 16_384, 128  # 2.048 s


class PromptSplit(Split):
    """Prompts in shards, as wav and json with `label`: a random window of each in training, otherwise `windows` of each."""

    def __init__(self, reader: shards.ShardReader, training: bool, windows: int) -> None:
        self.reader, self.training, self.windows = reader, training, 1 if training else windows
        self.keys = window_keys(reader.keys, self.windows)

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        number, window = divmod(index, self.windows)
        files = self.reader.read(number)
        position = uniform(0, 1, generator) if self.training else window_position(window, self.windows)
        content, label = files["wav"], files.label(len(LANGUAGES))
        with decoding(f"{files.key}.wav"):
            sound = sound_window(read_sound(content, RATE), SAMPLES, position)
        return {"audio": torch.from_numpy(sound), "target": torch.tensor(label)}


class LanguageId(ShardedData):
    """The language of telephone prompts, one of five: Asterisk's 2,831 core sounds, 131 minutes at 8 kHz.

    Most prompts exist in every language, so the split is by prompt: no prompt is in two splits. Each language has one
    speaker (English and Spanish share theirs), so a model may learn voices and recordings instead of languages: state this
    with every result. Logistic regression on statistics of log-mel bands is hard to
    beat (`src.tasks.Trivial`). Fifty of the prompts are silence. Licence: CC BY 3.0 and CC BY-SA 3.0.

    The modality `audio` is a window of 2.048 s: 128 elements of 128 samples. Half of the prompts are shorter and padded
    with silence.

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare language_id`.
        bands: frequencies of the Fourier features.
        eval_clips: evenly spaced windows per val and test prompt, whose scores are averaged; 1 is the middle.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "language_id"
    licence = "CC-BY-3.0 AND CC-BY-SA-3.0"
    credit = "asterisk-core-sounds (the speakers are named in its copyright files)"

    def __init__(self, data_dir: str = "data/language_id", bands: int = 32, eval_clips: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_counts(eval_clips=eval_clips)
        self.data_dir, self.eval_clips = Path(data_dir), eval_clips
        audio = GridModality((SAMPLES,), 1, bands, patch=(PATCH,), std=3000.0, kind="audio", rate=RATE)
        self.flatten = Flatten({"audio": audio})
        self.spec = DataSpec({"audio": audio.spec}, "single_label", tuple(LANGUAGES.values()))

    def make_split(self, name: SplitName) -> Split:
        return PromptSplit(self.reader(name), training=name == "train", windows=self.eval_clips)

    def cluster(self, key: str) -> str:
        """The prompt, in whatever language."""
        return key.partition("/")[2] or key
