"""Where a run stands in its suite, for its results."""

from __future__ import annotations

from pathlib import Path

from datamodules import UserError

from ..config.error_messages import suggest
from ..runs.results import SuiteEntry
from .definition import load_suite


def suite_entry(path: str, name: str) -> SuiteEntry:
    """The entry of a variant in a suite file.

    Raises:
        UserError: there is no such file, or it has no variant of this name.
    """
    suite = load_suite(Path(path))
    names = [variant.name for variant in suite.cells]
    if name not in names:
        raise UserError(f"--suite {path} has no variant {name!r}{suggest(name, names)}")
    position = names.index(name)
    return SuiteEntry(suite.name, suite.source, position, suite.cells[position].published)
