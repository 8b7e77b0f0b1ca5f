"""Data of any kind from a config alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.byte_array import DataSpec
from ..core.checks import check_counts
from ..core.datamodule import SPLITS, ByteArrayDataModule, Split, SplitName
from ..core.errors import BadSampleError, UserError, decoding
from ..core.flatten import Flatten
from ..core.order import hashed_seed
from ..core.random import uniform
from ..core.windows import sample_of, window_keys, window_position
from .kind import Kind, Value
from .kinds import KINDS, make_kind
from .series import Series, measure_series
from .sources import CLASS, FILE, SPLIT, SPLIT_NAMES, ShardSource, Source, open_source

MEASURED = 256  # samples that the statistics of series are taken from


class DeclaredSplit(Split):
    """Some rows of a source.

    Args:
        source: the rows.
        rows: their numbers.
        kinds: the modalities by name.
        columns: the columns of each modality.
        targets: the targets of the rows.
        training: True takes a random window of each sample.
        windows: evenly spaced windows per sample in evaluation.
    """

    def __init__(
        self,
        source: Source,
        rows: Sequence[int],
        kinds: Mapping[str, Kind],
        columns: Mapping[str, list[str]],
        targets: Sequence[Tensor],
        training: bool,
        windows: int,
    ) -> None:
        self.source, self.rows, self.kinds, self.columns, self.targets = source, rows, kinds, columns, targets
        self.training, self.windows = training, 1 if training else windows
        self.keys = window_keys([source.keys[row] for row in rows], self.windows)

    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        number, window = divmod(index, self.windows)
        row = self.rows[number]
        position = uniform(0, 1, generator) if self.training else window_position(window, self.windows)
        sample: dict[str, Any] = {"target": self.targets[number]}
        for name, kind in self.kinds.items():
            with decoding(f"{self.source.keys[row]} {name}"):
                content, label = read_columns(self.source, row, self.columns[name], kind.in_files)
                value = Value(content, label, position, generator if self.training else None)
                sample[name], damage = kind.load(value)
            if damage:
                sample["damage"] = f"{name}: {damage}"
        return sample


def read_columns(source: Source, row: int, columns: list[str], in_files: bool) -> tuple[Any, str]:
    """The value of one column, or the numbers of several."""
    if len(columns) == 1:
        return source.read(row, columns[0], in_files)
    return [source.read(row, column, False)[0] for column in columns], f"{source.keys[row]}/{columns[0]}"


class DeclaredData(ByteArrayDataModule):
    """Your data, declared in a config: no code is needed.

    The source is a folder of folders named by class (CLASS, or train/CLASS and so on), with the columns `file` and `class`; a
    table (CSV, TSV, JSON lines, parquet, arrow) or a folder of tables, also as Hugging Face's datasets have them
    (metadata.csv with `file_name`, which becomes `file`; data/train-00000-of-00001.parquet); or shards that
    `python -m datamodules.prepare adopt` indexed, whose columns are extensions (`jpg`, `jpg;png`) and fields of the json
    (`json.label`).

    A sample keeps its split whatever the others are called: by the column `split`, or drawn by groups in an order that is a
    hash of the group's name. Missing splits are drawn from the training samples.

    Args:
        source: the folder, table, or URL of shards.
        modalities: by name, the kind (`image`, `sound`, `video`, `points`, `text`, `series`), or a mapping with `kind`,
            `column` (by default the modality's name if there is such a column, else `file`; a list of columns with
            numbers makes one series of them) and the options of `datamodules.declared.kinds`.
        target: the column of the target, or several for regression.
        task: `single_label`, `multi_label` (lists, or texts separated by semicolons) or `regression`.
        classes: names of the classes in their order; by default those of the target, sorted, which reads the source when the
            datamodule is made.
        split: the column that says train, val or test; by default `split` if there is one, or what the names of tables say.
        group: the column whose values are never divided between splits, such as a speaker; by default `cluster`.
        cluster: the column whose samples belong together in statistics.
        held_out: shares of the groups that val and test are drawn with, where the source has none.
        windows: evenly spaced windows per val and test sample of sound, video and series, whose scores are averaged; 1 is
            the middle.
        num_workers: worker processes per rank; 0 loads in the training process.
        kwargs: see ByteArrayDataModule.
    """

    def __init__(
        self,
        source: str,
        modalities: dict[str, str | dict[str, Any]],
        target: str | list[str] = CLASS,
        task: Literal["single_label", "multi_label", "regression"] = "single_label",
        classes: Sequence[str] | None = None,
        split: str | None = None,
        group: str | None = None,
        cluster: str | None = None,
        held_out: tuple[float, float] = (0.1, 0.1),
        windows: int = 1,
        num_workers: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **kwargs)
        check_counts(windows=windows)
        if not modalities or not all(name.isidentifier() for name in modalities):
            raise UserError(f"modalities {list(modalities)}: name at least one, with letters and digits")
        if min(held_out) < 0 or sum(held_out) >= 1:
            raise UserError(f"held_out {list(held_out)}: give the shares of val and test, which leave some to train")
        self.source, self.task, self.held_out, self.windows = source, task, held_out, windows
        self.targets = [target] if isinstance(target, str) else list(target)
        self.split_column, self.group, self.cluster_column = split, group or cluster, cluster
        declared = {
            name: {"kind": given} if isinstance(given, str) else dict(given) for name, given in modalities.items()
        }
        self.kind_names = {name: str(options.pop("kind", None)) for name, options in declared.items()}
        self.named_columns = {name: options.pop("column", None) for name, options in declared.items()}
        self.kinds = {
            name: make_kind(name, self.kind_names[name], self.with_measures(name, options))
            for name, options in declared.items()
        }
        self.flatten = Flatten({name: kind.module for name, kind in self.kinds.items()})
        if classes is None:
            classes = self.targets if task == "regression" else self.found_classes()
        specs: dict[str, Any] = {name: kind.module.spec for name, kind in self.kinds.items()}
        self.spec = DataSpec(specs, task, tuple(map(str, classes)))

    @cached_property
    def rows(self) -> Source:
        suffixes = {s for kind in self.kind_names.values() if kind in KINDS for s in KINDS[kind].suffixes}
        found = open_source(self.source, suffixes)
        if not found.keys:
            raise UserError(f"{self.source} holds no samples of the kinds {', '.join(self.kind_names.values())}")
        return found

    def columns(self, name: str) -> list[str]:
        """The columns of a modality."""
        column = self.named_columns[name]
        if column is None:
            row = getattr(self.rows, "rows", [{name: None}])[0]
            column = name if name in row or FILE not in row else FILE
        return [column] if isinstance(column, str) else list(column)

    def with_measures(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a series with those that are not given, as the training samples have them."""
        if self.kind_names[name] != "series" or all(key in options for key in Series.needed):
            return options
        found = []
        for row in self.row_numbers["train"][:MEASURED]:
            content, label = read_columns(self.rows, row, self.columns(name), True)
            found.append(Value(content, label, 0.5, None))
        return measure_series(found, options)

    def found_classes(self) -> list[str]:
        names = {name for value in self.rows.values(self.targets[0]) for name in self.labels(value)}
        return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))

    def labels(self, value: Any) -> list[str]:
        """The classes that a target names."""
        if self.task == "multi_label":
            parts = value if isinstance(value, list) else str("" if value is None else value).split(";")
            return [str(part).strip() for part in parts if str(part).strip()]
        return [] if value is None or value == "" else [str(value)]

    @cached_property
    def row_numbers(self) -> dict[str, list[int]]:
        """The rows of each split, in their order."""
        count = len(self.rows.keys)
        stated: list[Any] = [None] * count
        if self.split_column or has_column(self.rows, SPLIT):
            stated = self.rows.values(self.split_column or SPLIT)
        names = [SPLIT_NAMES.get(str(name).strip().lower(), name) if name is not None else None for name in stated]
        if set(names) <= {"all", None}:
            names = [None] * count
        elif unknown := next((name for name in names if name not in SPLITS), None):
            raise UserError(f"the split {unknown!r} in {self.source} is none of {', '.join(SPLIT_NAMES)}: correct it")
        groups = list(map(str, self.rows.values(self.group))) if self.group else self.rows.keys
        free = [row for row in range(count) if names[row] in (None, "train")]
        order = sorted({groups[row] for row in free}, key=lambda group: hashed_seed("declared", group))
        wanted = [(s, share) for s, share in zip(("val", "test"), self.held_out, strict=True) if s not in names]
        part_of, first = {}, 0
        for split, share in wanted:
            some = max(1, round(share * len(order)))
            part_of |= dict.fromkeys(order[first : first + some], split)
            first += some
        found: dict[str, list[int]] = {split: [] for split in SPLITS}
        for row in range(count):
            stated_part = names[row] or "train"
            found[part_of.get(groups[row], "train") if stated_part == "train" else stated_part].append(row)
        if empty := [split for split, rows in found.items() if not rows]:
            raise UserError(f"{self.source} has too few groups for {' and '.join(empty)}: {len(order)} can be divided")
        return found

    @cached_property
    def target_tensors(self) -> list[Tensor | None]:
        """The target of each row; None for one that has none."""
        if self.task == "regression":
            columns = [self.rows.values(column) for column in self.targets]
            return [as_numbers(row) for row in zip(*columns, strict=True)]
        number = {name: n for n, name in enumerate(self.spec.classes)}
        found: list[Tensor | None] = []
        for value in self.rows.values(self.targets[0]):
            labels = self.labels(value)
            if unknown := next((label for label in labels if label not in number), None):
                raise UserError(f"{self.source} has the class {unknown!r}, which is not in --data.classes: add it")
            if self.task == "multi_label":
                hot = torch.zeros(len(number))
                hot[[number[label] for label in labels]] = 1
                found.append(hot)
            else:
                found.append(torch.tensor(number[labels[0]]) if labels else None)
        return found

    def make_split(self, name: SplitName) -> Split:
        rows = self.row_numbers[name]
        targets = [target for row in rows if (target := self.target_tensors[row]) is not None]
        if missing := [self.rows.keys[row] for row in rows if self.target_tensors[row] is None]:
            raise UserError(
                f"{self.source}: {missing[0]} has no {self.targets[0]}, as {len(missing)} of {len(rows)} {name} rows"
            )
        columns = {each: self.columns(each) for each in self.kinds}
        return DeclaredSplit(self.rows, rows, self.kinds, columns, targets, name == "train", self.windows)

    def licence_of(self, key: str) -> str | None:
        """What the manifest of adopted shards says; None of folders and tables."""
        return self.rows.manifest["licence"] if isinstance(self.rows, ShardSource) else None

    def cluster(self, key: str) -> str:
        """The value of the cluster column for a sample; its key without one."""
        return self._clusters.get(sample_of(key), key)

    @cached_property
    def _clusters(self) -> dict[str, str]:
        if self.cluster_column is None:
            return {}
        return dict(zip(self.rows.keys, map(str, self.rows.values(self.cluster_column)), strict=True))

    def fingerprint(self) -> str:
        return self.rows.fingerprint()


def has_column(source: Source, column: str) -> bool:
    try:
        source.values(column)
    except (UserError, BadSampleError):
        return False
    return True


def as_numbers(values: Sequence[Any]) -> Tensor | None:
    try:
        found = torch.tensor([float(value) for value in values])
    except (TypeError, ValueError):
        return None
    return found if found.isfinite().all() else None
