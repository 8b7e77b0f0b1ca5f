"""Tables and lines in the terminal: names stay whole, what does not fit is left out, and text stays text.

What is printed may come from the files of others: it is never read as markup, and escape sequences are shown, not obeyed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config.names import plain

LOG_WIDTH = 160  # of a file or pipe, so that every row stays on one line
WIDE = 99  # rank of columns that only wide tables have
PART = re.compile(r"[^\s/_-]*[\s/_-]|[^\s/_-]+")  # of a name, which may be broken after it


@dataclass(frozen=True)
class Column:
    """A column of a table, as strings.

    Args:
        key: names it whatever its heading.
        heading: may take several lines, broken at spaces.
        values: one for each row.
        rank: 0 for columns that are always shown; of the others those with the highest go first where the terminal is too
            narrow. WIDE for columns that only wide tables have.
        name: whether values are names: to the left, and in several lines where the terminal is too narrow.
        style: of the values, as rich names it.
    """

    key: str
    heading: str
    values: Sequence[str]
    rank: int = 0
    name: bool = False
    style: str = ""

    @property
    def whole(self) -> int:
        """Cells that the longest value and the longest word of the heading take."""
        return max(cell_len(text) for text in [*map(plain, self.values), *plain(self.heading).split()])

    @property
    def narrowest(self) -> int:
        """Cells that it takes at least: names have several lines."""
        texts = [part for value in [self.heading, *self.values] for part in PART.findall(plain(value))]
        return max(cell_len(text.rstrip()) for text in texts) if self.name else self.whole


def print_table(columns: Sequence[Column], wide: bool = False) -> list[str]:
    """Print a table that fits the terminal; returns the headings of the columns that were left out.

    Args:
        columns: all of the table.
        wide: show all columns, with names in one line, however wide the terminal is.
    """
    out = console()
    shown = list(columns) if wide else fitting(columns, out.width)
    widths = [column.whole for column in shown]
    if not wide:
        for number in sorted(range(len(shown)), key=lambda number: -widths[number]):  # the widest names break first
            widths[number] -= min(max(0, total_width(widths) - out.width), widths[number] - shown[number].narrowest)
    out.width = max(out.width, total_width(widths))  # the terminal breaks rows that are longer than its lines
    table = Table()
    for column, width in zip(shown, widths, strict=True):
        table.add_column(Text(plain(column.heading)), justify="left" if column.name else "right", width=width)
    for row in zip(*(column.values for column in shown), strict=True):
        table.add_row(*map(cell, row, shown, widths))
    out.print(table)
    return [column.heading for column in columns if column not in shown]


def cell(value: str, column: Column, width: int) -> Text:
    return Text(fold(plain(value), width) if column.name else plain(value), style=column.style)


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit into `width` cells with whole names: those of the highest ranks are left out."""
    shown = [column for column in columns if column.rank < WIDE]
    while total_width([column.whole for column in shown]) > width and any(column.rank for column in shown):
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def total_width(widths: Sequence[int]) -> int:
    """Cells of a table with columns of these widths: each has a space on both sides, and a border stands between."""
    return sum(widths) + 3 * len(widths) + 1


def fold(name: str, width: int) -> str:
    """A name in lines of at most `width` cells, broken after `/`, `-`, `_` and spaces. A longer part stays whole."""
    lines = [""]
    for part in PART.findall(name):
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def say(text: str, style: str = "", wrap: bool = False) -> None:
    """Print one line. `wrap` breaks it between words; paths and commands stay as they are, to be copied."""
    console().print(Text(plain(text), style=style), soft_wrap=not wrap)


def console() -> Console:
    """The terminal, or a wide page in a log."""
    found = Console(markup=False, emoji=False, highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = LOG_WIDTH
    return found
