"""Write the tables in README.md and docs/ from results/: `python -m src.tables`.

What lies between `<!-- table NAME -->` and `<!-- end -->` is made here, where NAME is a key of `TABLES`: lines, or words of a
sentence where both marks are on its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from datamodules import UserError

from ..config.command import Parser, run_command
from ..config.error_messages import suggest
from . import benchmarks, bytebench, suites, text

MARKED = re.compile(r"(<!-- table (?P<name>\S+) -->\n?)(?P<table>.*?)(<!-- end -->)", re.DOTALL)
DESCRIPTION = """Write the tables and pictures of README.md and docs/*.md from results/: first the CSV files of
results/bytebench from the archives of runs that lie there, then the pages from all CSV files."""
TABLES: dict[str, Callable[[], str]] = benchmarks.TABLES | suites.TABLES | bytebench.TABLES


def main(args: list[str] | None = None) -> list[Path]:
    """Returns the files that changed."""
    parser = Parser("python -m src.tables", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    parser.add_argument("--pages", action="store_true", help="only the pages, from the CSV files as they are")
    options = parser.parse_args(args)
    changed: list[Path] = []
    folder = text.results() / "bytebench"
    if not options.pages and any(folder.glob("*.tar.xz")):
        from . import collect, draw  # import matplotlib and Optuna: seconds

        changed += update(collect.csv_files(folder), options.check)
        changed += update(draw.pictures(folder), options.check)
    pages = [text.ROOT / "README.md", *sorted(text.ROOT.glob("docs/*.md"))]
    changed += update({page: update_tables(page.read_text()).encode() for page in pages}, options.check)
    if options.check and changed:
        raise SystemExit(1)
    return changed


def update(files: Mapping[Path, bytes], check: bool) -> list[Path]:
    """Writes the files that hold something else, unless `check`; names and returns them."""
    changed = [path for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
    for path in changed:
        print(f"{path.relative_to(text.ROOT)}: {'out of date' if check else 'written'}")
        if not check:
            path.write_bytes(files[path])
    return changed


def update_tables(page: str) -> str:
    """Returns the page with its tables updated.

    Raises:
        UserError: the page names an unknown table.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise UserError(f"there is no table {name!r}{suggest(name, TABLES)}")
        return f"{match[1]}{TABLES[name]()}{match[4]}"

    return MARKED.sub(table, page)


if __name__ == "__main__":
    run_command(main)
