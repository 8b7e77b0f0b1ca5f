"""Names and text that strangers may have written: names become folders, and text stays text wherever it is shown."""

from __future__ import annotations

import re

from datamodules import UserError

LONGEST_NAME = 150  # bytes: file systems take 255, and `.log` and the like are appended
FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet computes
MARKDOWN = re.compile(r"([\\`*\[\]<>|])")


def check_name(what: str, name: object) -> str:
    """The name of an experiment, a variant or a suite, which is one folder inside another.

    Raises:
        UserError: it is empty, leads out of its folder, or cannot be shown in one line; `what` says what has this name.
    """
    good = (
        isinstance(name, str) and name.isprintable() and name == name.strip() and 0 < len(name.encode()) <= LONGEST_NAME
    )
    if not good or set(name) & {"/", "\\"} or ".." in name or name[0] in ".-":
        raise UserError(
            f"{what} is {str(name)[:LONGEST_NAME]!r}: pass a name of letters, digits, '_' and the like, without '/' and "
            "'..', and without '.' or '-' at its start"
        )
    return name


def plain(text: str) -> str:
    """The text in one line, with control characters, such as those of escape sequences, written out."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def csv_text(value: object) -> object:
    """A cell of a CSV file: text in one line that no spreadsheet takes for a formula; other values as they are."""
    if not isinstance(value, str):
        return value
    return f"'{plain(value)}" if FORMULA.match(value) else plain(value)


def markdown_text(text: str) -> str:
    """Text in Markdown: no link, image, HTML, code or end of a table's cell."""
    return MARKDOWN.sub(r"\\\1", plain(text))
