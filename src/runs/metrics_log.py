"""metrics.csv: losses and metrics over training, appended row by row and never deleted first.

The columns are those of all rows so far, sorted. A row with a new one makes the file anew, aside, which happens a few times
in a run. Checkpoints know the rows before them: a run that resumes keeps these, and notices where some are missing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from datamodules import UserError
from datamodules.core.checks import read_bytes

from .files import write_file

Row = dict[str, str]  # of a row, the columns that have a value


class MetricsLog(Logger):
    """Lightning's logger for metrics.csv, in the format of its CSVLogger. The first rank writes.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.start([])

    def start(self, rows: list[Row]) -> None:
        """Go on after these rows, which the file has."""
        self.columns = columns_of(rows)
        self.count, self.hash = 0, hashlib.sha256()
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
        self.count += 1
        self.hash.update(repr(sorted(row.items())).encode())

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {name: str(value) for name, value in metrics.items()} | {"step": str(step)}
        if row.keys() <= set(self.columns):
            with self.path.open("a", newline="") as file:
                file.write(csv_text([row], self.columns))
        else:
            write_rows(self.path, [*read_rows(self.path), row])
            self.columns = sorted({*self.columns, *row})
        self.take(row)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: how many rows there are, and their hash."""
        return {"rows": self.count, "sha256": self.hash.hexdigest()}

    @rank_zero_only
    def resume(self, step: int, state: Mapping[str, Any] | None) -> None:
        """Keep the rows before a checkpoint, and drop those that are to be logged again.

        Args:
            step: steps that the checkpoint was taken after; 0 without a checkpoint.
            state: of this log when it was taken; None for a checkpoint of an older version.

        Raises:
            UserError: rows that were logged before the checkpoint are missing or changed.
        """
        found = read_rows(self.path)
        expected = 0 if state is None else state["rows"]
        self.start(found[:expected])
        if state is not None and self.state() != state:
            raise UserError(
                f"{self.path} lacks rows, or has others: the checkpoint after step {step} was written after {expected} "
                f"rows, {len(found)} are there: restore the file, or leave --resume out to train anew"
            )
        kept = found[:expected] + [row for row in found[expected:] if int(row["step"]) < step]
        if kept != found or self.is_torn():
            write_rows(self.path, kept)
        self.start(kept)

    def is_torn(self) -> bool:
        """Whether the last row was being written when the run was killed: the next one must not be appended to it."""
        return self.path.is_file() and not self.path.read_bytes().endswith(b"\n")

    @rank_zero_only
    def sync(self) -> None:
        """Make what was appended durable, before a checkpoint says that it is there."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml has them."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.csv; none where there is no file. A last row without its end was being written.

    Raises:
        UserError: it is no such file.
    """
    try:
        text = read_bytes(path).decode()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged ({error.reason}): restore it, or leave --resume out") from error
    whole = text[: text.rfind("\n") + 1]
    rows = [
        {name: value for name, value in row.items() if value} for row in csv.DictReader(io.StringIO(whole, newline=""))
    ]
    if not all(None not in row and row.get("step", "").isdigit() for row in rows):
        raise UserError(f"{path} is damaged (a row does not fit the columns): restore it, or leave --resume out")
    return rows


def write_rows(path: Path, rows: list[Row]) -> None:
    columns = columns_of(rows)
    heading = csv_text([dict(zip(columns, columns, strict=True))], columns) if columns else ""
    write_file(path, heading + csv_text(rows, columns))


def columns_of(rows: Iterable[Row]) -> list[str]:
    return sorted({name for row in rows for name in row})


def csv_text(rows: Iterable[Mapping[str, str]], columns: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue()
