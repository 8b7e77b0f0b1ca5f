"""A static leaderboard that needs no network: every experiment with its page, and every variant with its own.

FOLDER/
  index.html  style.css  script.js
  samples/                     pictures and sounds of samples, see samples.py
  EXPERIMENT/index.html        the page of its comparison, see ../report/html.py
  EXPERIMENT/VARIANT.html      one variant: verdicts, curves, errors, config, command, data, environment
  EXPERIMENT/VARIANT.tar.xz    its run folders without checkpoints and curves; `compare` takes them again
  EXPERIMENT/variants.csv  variants.json  pairs.csv  claims.csv
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from datamodules import UserError

from ..metrics.registry import metric_named
from ..report.comparison import Comparison
from ..report.html import SCRIPT, STYLE, best_first, html_page, templates
from ..report.text import csv
from ..runs.archive import pack
from ..runs.files import PART
from .entry import entry_page
from .samples import FOLDER, Galleries
from .worst import worst_samples

MARK = '<meta name="generator" content="ByteBench">'
CURVES = "metrics.csv"  # the pages show them, and their rows would be most of a site
LARGEST = 2_000_000  # bytes of a file that is offered


@dataclass(frozen=True)
class Experiment:
    """One experiment of a site: its comparison, or why its runs cannot be compared."""

    name: str
    comparison: Comparison | None = None
    why: str = ""


def build_site(folder: Path, experiments: Sequence[Experiment]) -> Path:
    """Writes a site, in the place of an older one; returns its first page.

    Raises:
        UserError: the folder holds something else.
    """
    check_place(folder)
    aside = folder.with_name(f"{folder.name}.{os.getpid()}{PART}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / "style.css").write_text(STYLE, encoding="utf-8")
    (aside / "script.js").write_text(SCRIPT, encoding="utf-8")
    rows, galleries = [], Galleries(aside)
    for experiment, name in zip(experiments, file_names([each.name for each in experiments]), strict=True):
        if experiment.comparison is not None:
            rows.append(row_of(experiment.comparison) | {"name": experiment.name, "link": f"{quote(name)}/index.html"})
            write_experiment(aside / name, experiment.comparison, galleries)
        else:
            rows.append({"name": experiment.name, "why": experiment.why})
    page = templates(Path(__file__).parent).get_template("index.html").render(title="Results", root="", rows=rows)
    (aside / "index.html").write_text(page, encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(aside, folder)
    return folder / "index.html"


def check_place(folder: Path) -> None:
    """Raises UserError where a site would overwrite something else."""
    first = folder / "index.html"
    ours = first.is_file() and MARK in first.read_text(encoding="utf-8", errors="replace")[:2000]
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--site {folder} holds other files: name a new folder, or one with an older site")


def file_names(names: Sequence[str]) -> list[str]:
    """A file name for each of some names, no two of them alike, also where case does not count."""
    found: list[str] = []
    for name in names:
        short = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "variant"
        number, free = 1, short
        while free.casefold() in {each.casefold() for each in (*found, "index", FOLDER)}:
            number += 1
            free = f"{short}_{number}"
        found.append(free)
    return found


def row_of(comparison: Comparison) -> dict[str, Any]:
    """One experiment in the table of all."""
    best = comparison.variants[best_first(comparison)[0]]
    data, records = comparison.records[0].data, comparison.records
    shown = sum(judged.word == "shown" for judged in comparison.claims)
    return {
        "data": data["dataset"],
        "modalities": ", ".join(data["spec"]["modalities"]),
        "metric": comparison.metric,
        "variants": len(comparison.variants),
        "runs": len(records),
        "best": " = ".join(comparison.ties[0][:3]) + (" and more" if len(comparison.ties[0]) > 3 else ""),
        "value": metric_named(comparison.metric).format(best.interval(comparison.metric).mean),
        "claims": f"{shown} of {len(comparison.claims)} shown" if comparison.claims else "-",
        "verified": sum(record.verified for record in records),
        "left_out": len(comparison.excluded),
        "search": " ".join(variant.label for variant in comparison.variants),
    }


def write_experiment(folder: Path, comparison: Comparison, galleries: Galleries) -> None:
    """The page of a comparison, those of its variants, and what they offer."""
    folder.mkdir()
    tables = {
        "variants.csv": comparison.frame(),
        "pairs.csv": comparison.pairs_frame(),
        "claims.csv": comparison.claims_frame(),
    }
    offered = [(name, name) for name, table in tables.items() if len(table)]
    for name, _ in offered:
        (folder / name).write_text(csv(tables[name]), encoding="utf-8")
    (folder / "variants.json").write_text(tables["variants.csv"].to_json(orient="records", indent=1), encoding="utf-8")
    names = file_names([variant.label for variant in comparison.variants])
    trail = [("All experiments", "../index.html")]
    page = html_page(
        comparison,
        [f"{quote(name)}.html" for name in names],
        root="../",
        trail=trail,
        downloads=[*offered, ("variants.json", "variants.json")],
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    worst = [worst_samples(comparison, variant) for variant in comparison.variants]
    shown = galleries.of(worst)
    for number, name in enumerate(names):
        left = write_runs(folder / f"{name}.tar.xz", comparison, number)
        page = entry_page(comparison, number, names, left, worst[number], shown[number])
        (folder / f"{name}.html").write_text(page, encoding="utf-8")


def write_runs(path: Path, comparison: Comparison, number: int) -> list[str]:
    """The run folders of a variant as one archive; returns the files that are too large for it."""
    left, members = [], []
    for record in comparison.variants[number].records:
        experiment, cell = file_names([record.results.experiment]), file_names([record.results.cell])
        place = f"{experiment[0]}/{cell[0]}/{file_names([record.run.folder.name])[0]}"
        for file in record.run.copied_files():
            if file.name == CURVES:
                continue
            if file.stat().st_size > LARGEST:
                left.append(str(file))
            else:
                members.append((f"{place}/{file.name}", file))
    pack(path, members)
    return left
