"""The worst samples of every variant as small pictures, sounds and texts, where the licence of the data lets them be shown.

A file of a sample is named by its content, so pages that show the same sample share it. Data are read where they lie, and
only if they are those of the runs: nothing is composed or fetched for a page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from datamodules import BadSampleError, ByteArrayDataModule, UserError
from datamodules.core.order import sample_generator
from datamodules.core.windows import sample_of
from datamodules.licences import is_open
from datamodules.storage.remote import url

from ..report.records import Record
from .media import Medium, medium
from .worst import Worst

FOLDER = "samples"
SHOWN = 12  # samples of a page
MOST_BYTES = 1_000_000  # of the files of an experiment
SAME_SAMPLES = {"seed", "batch_size", "num_workers", "on_bad_sample", "max_bad_share"}  # options that change none
ABSENT = "the data are not on the machine that made this page"


@dataclass
class Gallery:
    """The samples of a page, and why there are none or whom they are from."""

    cards: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


class Samples:
    """The test samples that a run was tested on.

    Args:
        data: the datamodule.
        record: the run.

    Raises:
        UserError: files are missing.
    """

    def __init__(self, data: ByteArrayDataModule, record: Record) -> None:
        self.data, self.record, self.split = data, record, data.split("test")
        self.rows: dict[str, list[int]] = {}
        for row, key in enumerate(self.split.keys):
            self.rows.setdefault(sample_of(key), []).append(row)

    @cached_property
    def same(self) -> bool:
        """Whether the data are those of the run."""
        return self.data.fingerprint() == self.record.data["fingerprint"]

    def media(self, key: str) -> list[Medium] | str:
        """A sample, of several windows the middle one; or why it is not shown."""
        if key not in self.rows:
            return "the runs kept no names of their samples"
        if not is_open(self.data.licence_of(key)):
            return f"{self.record.data['dataset']} states no open licence"
        if not self.same:
            return "the data on the machine that made this page are others"
        row = self.rows[key][len(self.rows[key]) // 2]
        try:
            sample = self.split.load(row, sample_generator(0, 0, key))
        except (BadSampleError, UserError):
            return "they cannot be read"
        found = [medium(name, spec, sample[name].numpy()) for name, spec in self.data.spec.modalities.items()]
        return [each for each in found if each is not None] or "they are neither pictures, sounds nor texts"


class Galleries:
    """What the pages of a site show of data: every data set is opened once.

    Args:
        site: the folder of the site.
    """

    def __init__(self, site: Path) -> None:
        self.folder = site / FOLDER
        self.opened: dict[str, Samples | str] = {}  # or why there are none to be shown
        self.found: dict[tuple[str, str], list[Medium] | str] = {}

    def of(self, worst: Sequence[Worst | None]) -> list[Gallery]:
        """A gallery for each variant of an experiment: first the worst sample of all, then the next, while there is room."""
        pages, room = [Gallery() for _ in worst], MOST_BYTES
        for rank in range(SHOWN):
            for page, each in zip(pages, worst, strict=True):
                if each is None or rank >= len(each.rows):
                    continue
                media = self.media(each.record, each.rows[rank]["sample"])
                if isinstance(media, str):
                    page.note = page.note or f"The samples are not shown: {media}."
                    continue
                new = {m.file: m.content for m in media if m.content and not (self.folder / m.file).exists()}
                if (size := sum(map(len, new.values()))) > room:
                    continue
                room -= size
                self.folder.mkdir(exist_ok=True)
                for name, content in new.items():
                    (self.folder / name).write_bytes(content)
                page.cards.append({"row": each.rows[rank], "media": media})
        for page, each in zip(pages, worst, strict=True):
            if each is not None and page.cards:
                page.note = self.credit(each.record, [card["row"]["sample"] for card in page.cards])
        return pages

    def media(self, record: Record, key: str) -> list[Medium] | str:
        """A sample, or why it is not shown."""
        place = data_of(record)
        if place not in self.opened:
            self.opened[place] = open_samples(record)
        samples = self.opened[place]
        if isinstance(samples, str):
            return samples
        if (place, key) not in self.found:
            self.found[place, key] = samples.media(key)
        return self.found[place, key]

    def credit(self, record: Record, keys: Sequence[str]) -> str:
        """Whom samples are from, and their licences."""
        samples = self.opened[data_of(record)]
        assert isinstance(samples, Samples)
        licences = sorted({str(samples.data.licence_of(key)) for key in keys})
        return f"Samples: {samples.data.credit or record.data['dataset']}; {', '.join(licences)}."


def data_of(record: Record) -> str:
    """What names the samples of a run, whatever their order and batches."""
    options = {
        n: v for n, v in record.config.items() if n.startswith("data.") and n.rpartition(".")[2] not in SAME_SAMPLES
    }
    return json.dumps([options, record.data["fingerprint"]], sort_keys=True, default=str)


def open_samples(record: Record) -> Samples | str:
    """The samples of a run's data, or why they are not shown. A stranger may have written its config."""
    name, chosen = record.data["dataset"], record.run.config().get("data")
    if not isinstance(chosen, dict) or (kind := datamodule_of(chosen.get("class_path"))) is None:
        return f"{name} is no data set of ByteBench"
    if kind.licence is None and kind.licence_of is ByteArrayDataModule.licence_of:
        return f"{name} states no open licence"
    options = {k: v for k, v in (chosen.get("init_args") or {}).items() if k not in SAME_SAMPLES}
    if any(isinstance(value, str) and url(value) for value in options.values()):
        return ABSENT
    try:
        return Samples(kind(**options, num_workers=0), record)
    except Exception:  # whatever a stranger's options lead to
        return ABSENT


def datamodule_of(path: Any) -> type[ByteArrayDataModule] | None:
    """The class of a config, if it is one of ours: others are not imported for a page."""
    module, _, name = str(path).rpartition(".")
    if module.partition(".")[0] != "datamodules":
        return None
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, UserError):
        return None
    return found if isinstance(found, type) and issubclass(found, ByteArrayDataModule) else None
