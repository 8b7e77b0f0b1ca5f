"""Emoji in nine styles, each with its name in a language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.datamodule import Split, SplitName
from ..core.errors import BadSampleError, UserError
from ..storage.shards import Sample
from .named import NamedModality, NamedPictures

GROUPS = (
    *("Activities", "Animals & Nature", "Flags", "Food & Drink", "Objects", "People & Body", "Smileys & Emotion"),
    *("Symbols", "Travel & Places"),
)
STYLES = (
    *("emojione", "emojione-monotone", "emojione-v1", "fluent-emoji-flat", "fluent-emoji-high-contrast", "noto"),
    *("noto-v1", "openmoji", "twemoji"),
)


class Emoji(NamedPictures):
    """Unicode's group of an emoji, one of nine, from its picture and its name in a language: 11,920 drawings of 1,576 emoji.

    Models are trained and chosen on the other styles and tested on one that they have not seen. An emoji is in one split in
    all its styles and languages, so that its name tells nothing that was learned by heart; `cluster` names it. Drawn by nine
    open icon sets, named by Unicode's CLDR in 108 languages.

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare emoji`.
        modalities: picture, name, or both.
        language: code of the language of the names, such as en, hi or sw.
        test_style: the style to test on; training and choosing use all others.
        side: height and width of the pictures, as prepared.
        patch: side of a patch in pixels.
        name_bytes: bytes of a name, truncated or padded and masked; the longest English name has 40.
        bands: frequencies of the Fourier features.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "emoji"
    credit = "the icon set that its name begins with, of @iconify/json, and Unicode's CLDR"

    def __init__(
        self,
        data_dir: str = "data/emoji",
        modalities: Sequence[NamedModality] = ("picture", "name"),
        language: str = "en",
        test_style: str = "twemoji",
        side: int = 32,
        patch: int = 2,
        name_bytes: int = 64,
        bands: int = 16,
        **kwargs: Any,
    ) -> None:
        if test_style not in STYLES:
            raise UserError(f"test_style {test_style!r}: choose one of {', '.join(STYLES)}")
        super().__init__(data_dir, "single_label", GROUPS, modalities, side, patch, name_bytes, bands, **kwargs)
        self.language, self.test_style = language, test_style

    def target(self, sample: Sample) -> Tensor:
        return torch.tensor(sample.label(len(GROUPS)))

    def name_of(self, sample: Sample) -> str:
        names = sample.metadata().get("names")
        if not isinstance(names, dict):
            raise BadSampleError(f"{sample.key}.json has no names")
        return str(names.get(self.language, ""))  # in Hindi one emoji has no name, in Swahili two

    def make_split(self, name: SplitName) -> Split:
        languages = self.manifest()["made_with"].get("languages", [])
        if self.language not in languages:
            raise UserError(f"language {self.language!r}: choose one of {', '.join(languages)}")
        return super().make_split(name)

    def rows(self, name: SplitName, keys: Sequence[str]) -> Sequence[int]:
        return [row for row, key in enumerate(keys) if (style_of(key) == self.test_style) == (name == "test")]

    def licence_of(self, key: str) -> str | None:
        """The licences of its style and of the names."""
        found = self.manifest()["made_with"].get("licences", {})
        parts = [found.get(style_of(key)), found.get("names")]
        return None if None in parts else " AND ".join(parts)

    def cluster(self, key: str) -> str:
        """The emoji of a sample."""
        return key.rpartition("/")[2]


def style_of(key: str) -> str:
    return key.partition("/")[0]
