"""The page of a comparison: one file that needs no network.

comparison.html is its template, style.css its style; tables.js sorts and searches its tables, charts.js draws its charts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from ..config.names import plain
from ..metrics.classification import average_precision_per_class
from ..metrics.registry import metric_named
from ..stats.intervals import Estimate
from . import rules
from .comparison import COSTS, Comparison, VariantResults, published_value
from .differences import KINDS
from .records import Record
from .text import columns, intervals_of, measurement_lines, with_half

HERE = Path(__file__).parent
POINTS = 100  # of a curve
CLASSES = 40  # of a confusion matrix
DIGITS = 5  # of numbers in charts
STYLE = (HERE / "style.css").read_text()
SCRIPT = "".join((HERE / name).read_text() for name in ("tables.js", "charts.js"))


@cache
def templates(*folders: Path) -> Environment:
    """The templates in some folders and in this one: whatever they are given is shown as text in one line."""

    def text(value: Any) -> Any:
        return value if isinstance(value, Markup) else plain(str(value))

    return Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        finalize=text,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def html_page(comparison: Comparison, links: Sequence[str] = (), **more: Any) -> str:
    """The whole page.

    Args:
        comparison: what it shows.
        links: where the pages of the variants are, if they have any.
        more: of a page that is part of a site: `root`, `trail` and `downloads`, see its template.
    """
    return (
        templates()
        .get_template("comparison.html")
        .render(
            title=", ".join(sorted({variant.name[0] for variant in comparison.variants})),
            summary=comparison.summary,
            split=comparison.split,
            **variants_table(comparison, links),
            notes=[*intervals_of(comparison), *measurement_lines(comparison)],
            claims=claims_table(comparison),
            differing=differing_tables(comparison),
            runs=runs_table(comparison.records, comparison),
            left_out=left_out(comparison),
            places=places(comparison.records),
            rules=Markup(escape((rules.__doc__ or "").strip())),
            data=json_markup(page_data(comparison)),
            style=Markup(STYLE),
            script=Markup(SCRIPT),
            **more,
        )
    )


def json_markup(content: Any) -> Markup:
    """JSON inside of a page."""
    return Markup(json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"))


def page_data(comparison: Comparison) -> dict[str, Any]:
    """What the charts draw. Intervals are [mean, low, high]; None where unknown."""
    metric = comparison.metric
    cells = []
    for variant in comparison.variants:
        found = variant.interval(metric)
        values = sorted(variant.values.get(metric, {}).items())
        cells.append(
            {
                "name": variant.label,
                "interval": rounded([found.mean, found.low, found.high]),
                "published": rounded([published_value(variant.published, metric)[0]])[0],
                "values": [[name_of(repeat), *rounded([value])] for repeat, value in values],
                "costs": {name: rounded([variant.cost(name)])[0] for name in COSTS},
                "curves": curves(variant, max(30, POINTS - len(comparison.variants))),
            }
        )
    return {
        "metric": metric,
        "lower": not metric_named(metric).higher_is_better,
        "split": comparison.split,
        "reference": comparison.reference,
        "cells": cells,
        "differences": {f"{i},{j}": bounds(found) for (i, j), found in comparison.pairs.items()},
        "verdicts": {f"{i},{j}": found.text for (i, j), found in comparison.verdicts.items()},
        "predictions": predictions(comparison),
    }


def name_of(repeat: tuple[int, int | None]) -> str:
    seed, fold = repeat
    return f"seed {seed}" + ("" if fold is None else f", fold {fold}")


def bounds(interval: Estimate) -> list:
    return rounded([interval.mean, interval.low, interval.high])


def rounded(values: Any) -> list[float | None]:
    """Numbers that JSON can hold, short."""
    return [None if v is None or not np.isfinite(v) else float(f"{v:.{DIGITS}g}") for v in values]


def curves(variant: VariantResults, points: int = POINTS) -> dict[str, list]:
    """Over training, for every loss and metric: training samples seen, mean, lowest and highest of the variant's runs."""
    columns = dict.fromkeys(str(name) for record in variant.records for name in record.curves)
    found = {}
    for name in columns:
        if name.startswith(("train/", "val/")) and not name.endswith(("/samples", "_classes")):
            runs = pd.concat([curve(record, name) for record in variant.records], axis=1).dropna()
            if len(runs):
                few = np.arange(len(runs)) * points // max(len(runs), points)
                seen = pd.Series((runs.index.to_numpy() + 1) * variant.budget.batch).groupby(few).mean()
                runs = runs.groupby(few).mean()
                found[name] = [rounded(v) for v in (seen, runs.mean(axis=1), runs.min(axis=1), runs.max(axis=1))]
    return found


def curve(record: Record, name: str) -> pd.Series:
    """One run's values of a column by step."""
    table = record.curves
    return table[["step", name]].dropna().groupby("step")[name].last() if name in table else pd.Series(dtype=float)


def predictions(comparison: Comparison) -> dict[str, Any] | None:
    """Confusion counts of single labels, summed over a variant's runs, or average precision per class of many labels, their
    mean; None where no run kept predictions."""
    if comparison.split != "test":
        return None
    kept = {i: [r for r in variant.records if r.examined.arrays] for i, variant in enumerate(comparison.variants)}
    kept = {i: records for i, records in kept.items() if records}
    if not kept:
        return None
    arrays = frozenset.intersection(*(r.examined.arrays for records in kept.values() for r in records))
    classes = comparison.records[0].data["spec"]["classes"]
    if "predicted" in arrays:
        counts = {i: sum(confusion(record, len(classes)) for record in records) for i, records in kept.items()}
        total = np.asarray(sum(counts.values()))
        found = total.diagonal() / np.maximum(total.sum(axis=1), 1)
        shown = np.sort(found.argsort(kind="stable")[:CLASSES])  # those that are found least often
        tables = {i: np.asarray(table)[np.ix_(shown, shown)].tolist() for i, table in counts.items()}
        return {
            "kind": "confusion",
            "classes": [classes[c] for c in shown],
            "of": len(classes),
            "cells": tables,
            # of all samples, so that rows are shares of them
            "totals": {i: np.asarray(table).sum(axis=1)[shown].tolist() for i, table in counts.items()},
        }
    if "scores" in arrays:
        precision = {i: np.mean([per_class(r) for r in records], axis=0) for i, records in kept.items()}
        return {
            "kind": "classes",
            "classes": list(classes),
            "cells": {i: rounded(values) for i, values in precision.items()},
        }
    return None


def confusion(record: Record, classes: int) -> np.ndarray:
    """Counts (true class, predicted class)."""
    found = record.predictions or {}
    pairs = found["target"].astype(np.int64) * classes + found["predicted"]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def per_class(record: Record) -> np.ndarray:
    found = record.predictions or {}
    return average_precision_per_class(torch.from_numpy(found["scores"]), torch.from_numpy(found["target"])).numpy()


def variants_table(comparison: Comparison, links: Sequence[str]) -> dict[str, Any]:
    """The table of variants from the best mean on; the script fills in the columns of differences."""
    found = columns(comparison)
    letters = tie_letters(comparison)
    rows = []
    for number, variant in enumerate(comparison.variants):
        cells = [(column.key, column.values[number]) for column in found]
        cells.insert(1, ("ties", letters[number]))
        verified = sum(record.verified for record in variant.records)
        row = {"number": number, "cells": cells, "verified": verified, "runs": len(variant.records)}
        rows.append(row | {"link": links[number] if links else None})
    headings = [column.key if column.key in ("difference", "verdict") else column.heading for column in found]
    headings.insert(1, "ties")
    return {"headings": headings, "rows": [rows[number] for number in best_first(comparison)]}


def best_first(comparison: Comparison) -> list[int]:
    """Numbers of the variants from the best mean on."""
    sign = -1 if metric_named(comparison.metric).higher_is_better else 1
    means = [sign * variant.interval(comparison.metric).mean for variant in comparison.variants]
    return sorted(range(len(means)), key=lambda number: (np.isnan(means[number]), means[number]))


def tie_letters(comparison: Comparison) -> list[str]:
    """For every variant the letters of its groups of ties: two that share one are not separable."""
    found = [""] * len(comparison.variants)
    place = {variant.label: number for number, variant in enumerate(comparison.variants)}
    for number, group in enumerate(comparison.ties):
        letter = chr(ord("a") + number) if number < 26 else f" {number + 1}"
        for label in group:
            found[place[label]] += letter
    return [letters.strip() for letters in found]


def claims_table(comparison: Comparison) -> list[dict[str, str]]:
    found = []
    for judged in comparison.claims:
        difference = judged.difference
        limits = "-" if difference is None else with_half(difference, "+.4f")
        row = {"claim": judged.claim.text, "verdict": judged.word, "metric": judged.metric, "difference": limits}
        found.append(row | {"p": f"{judged.p:.3g}", "why": judged.why or "-"})
    return found


def differing_tables(comparison: Comparison) -> dict[str, list[dict]]:
    """Whatever differs between the runs, a table for each class."""
    found: dict[str, list[dict]] = {}
    for kind in KINDS:
        for each in comparison.differing:
            if each.kind == kind:
                rows = [{"what": each.name, "value": v, "in": ", ".join(who)} for v, who in each.values.items()]
                found.setdefault(kind, []).extend(rows)
    return found


def runs_table(records: Sequence[Record], comparison: Comparison) -> list[dict[str, Any]]:
    """One row per kept run."""
    rows = []
    for record in records:
        metrics = record.metrics(comparison.split)
        row = {"run": record.folder, "cell": record.variant[1], "seed": record.seed}
        row |= {name: metric_named(name).format(metrics.get(name)) for name in comparison.metrics}
        row |= {"steps": f"{record.results.steps:,}", "time": f"{record.results.wall_time_seconds:,.0f} s"}
        rows.append(row | {"commit": commit(record), "hardware": record.hardware})
    return rows


def commit(record: Record) -> str:
    git = record.environment["git"]
    return (git["commit"] or "-")[:8] + ("+" if git["dirty"] else "")


def left_out(comparison: Comparison) -> list[dict[str, Any]]:
    found = []
    for out in comparison.excluded:
        changes = [{"option": n, "this run": a, "the reference": b} for n, (a, b) in (out.changes or {}).items()]
        found.append({"folder": out.folder, "reasons": out.reasons, "reference": out.reference, "changes": changes})
    return found


def places(records: Sequence[Record]) -> dict[str, list[dict]]:
    """Where runs took place: what differs, with places as columns, which runs they are of, and what all share."""
    runs: dict[tuple, list[str]] = {}
    for record in records:
        place = {name: str(value) for name, value in place_of(record).items()}
        runs.setdefault(tuple(sorted(place.items())), []).append(record.folder)
    found = [dict(place) for place in runs]
    letters = [f"place {number}" for number in range(1, len(found) + 1)]
    names = list(dict.fromkeys(name for place in found for name in place))
    values = {name: [place.get(name, "-") for place in found] for name in names}
    differs = {name: texts for name, texts in values.items() if len(set(texts)) > 1}
    return {
        "differs": [{"what": name, **dict(zip(letters, texts, strict=True))} for name, texts in differs.items()],
        "who": [{"place": letter, "runs": ", ".join(who)} for letter, who in zip(letters, runs.values(), strict=True)],
        "same": [{"what": name, "all runs": texts[0]} for name, texts in values.items() if name not in differs],
    }


def place_of(record: Record) -> dict[str, Any]:
    """Commit, hardware, versions."""
    where = record.environment
    found = {"commit": commit(record), "hardware": record.hardware, "platform": where["platform"]}
    found |= {"python": where["python"], "CUDA": where["cuda"] if where["gpus"] else "-"}
    found |= {f"torch {name}": value for name, value in where["torch"].items()}
    return found | {f"package {name}": version for name, version in where["packages"].items()}
