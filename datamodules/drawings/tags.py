"""Icons of Material Design Icons with their tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..storage.shards import Sample
from .named import NamedModality, NamedPictures

TAGS = (
    *("Account / User", "Agriculture", "Alert / Error", "Alpha / Numeric", "Animal", "Arrange", "Arrow", "Audio"),
    *(
        "Automotive",
        "Banking",
        "Battery",
        "Brand / Logo",
        "Cellphone / Phone",
        "Clothing",
        "Cloud",
        "Color",
        "Currency",
    ),
    *("Database", "Date / Time", "Developer / Languages", "Device / Tech", "Drawing / Art", "Edit / Modify", "Emoji"),
    *("Files / Folders", "Food / Drink", "Form", "Gaming / RPG", "Geographic Information System", "Hardware / Tools"),
    *("Health / Beauty", "Holiday", "Home Automation", "Lock", "Math", "Medical / Hospital", "Music", "Nature"),
    *("Navigation", "Notification", "People / Family", "Photography", "Places", "Printer", "Religion", "Science"),
    *("Settings", "Shape", "Shopping", "Social Media", "Sport", "Text / Content / Format", "Tooltip"),
    *("Transportation + Flying", "Transportation + Other", "Transportation + Road", "Transportation + Water", "Vector"),
    *("Video / Movie", "View", "Weather"),
)


class Tags(NamedPictures):
    """The tags of an icon, any of 61, from its picture and its English name: 5,129 icons of @mdi/svg 7.4.47.

    Neither is enough: `cloud-lock` is tagged Cloud and Lock, and many names say little. Icons that share the first word of
    their names, such as `account-plus` and `account-minus`, are in one split; `cluster` names it.

    Args:
        data_dir: the folder of the shards, made by `python -m datamodules.prepare tags`.
        modalities: picture, name, or both.
        side: height and width of the pictures, as prepared.
        patch: side of a patch in pixels.
        name_bytes: bytes of a name; none is longer than 42.
        bands: frequencies of the Fourier features.
        kwargs: see ByteArrayDataModule.
    """

    prepared_as = "tags"

    def __init__(
        self,
        data_dir: str = "data/tags",
        modalities: Sequence[NamedModality] = ("picture", "name"),
        side: int = 32,
        patch: int = 2,
        name_bytes: int = 48,
        bands: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_dir, "multi_label", TAGS, modalities, side, patch, name_bytes, bands, **kwargs)

    def target(self, sample: Sample) -> Tensor:
        return one_hot(torch.tensor(sample.labels(len(TAGS))), len(TAGS)).amax(dim=0).float()

    def name_of(self, sample: Sample) -> str:
        return sample.key

    def cluster(self, key: str) -> str:
        """The first word of the name."""
        return first_word(key)


def first_word(name: str) -> str:
    return name.partition("-")[0]
