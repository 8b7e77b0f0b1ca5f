"""The page of a comparison: one file that needs no network. Its style is in page.css, its charts in page.js."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..config.names import plain
from ..metrics.classification import average_precision_per_class
from ..metrics.registry import metric_named
from ..stats.intervals import Estimate
from . import rules
from .comparison import COSTS, Comparison, VariantResults, published_value
from .differences import KINDS
from .records import Record
from .text import columns, notes

HERE = Path(__file__).parent
POINTS = 200  # of a curve
CLASSES = 40  # of a confusion matrix
DIGITS = 5  # of numbers in charts


def html_page(comparison: Comparison) -> str:
    """The whole page."""
    names = sorted({variant.name[0] for variant in comparison.variants})
    parts = {
        "title": safe(", ".join(names)),
        "summary": safe(comparison.summary),
        "cells": in_box(variants_table(comparison)),
        "notes": "".join(f"<li>{safe(note)}.</li>" for note in notes(comparison)),
        "differing": differing_tables(comparison),
        "runs": in_box(runs_table(comparison)),
        "left_out": left_out_list(comparison),
        "records": records_table(comparison),
        "rules": escape((rules.__doc__ or "").strip()),
        "data": json.dumps(page_data(comparison), separators=(",", ":")).replace("<", "\\u003c"),
        "css": (HERE / "page.css").read_text(),
        "js": (HERE / "page.js").read_text(),
    }
    page = (HERE / "page.html").read_text()
    for name, text in parts.items():
        page = page.replace(f"<!--{name}-->", text)
    return page


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
                "curves": curves(variant),
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
        "claims": [judged.line for judged in comparison.claims],
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


def curves(variant: VariantResults) -> dict[str, list]:
    """Over training, for every loss and metric: training samples seen, mean, lowest and highest of the variant's runs."""
    columns = dict.fromkeys(str(name) for record in variant.records for name in record.curves)
    found = {}
    for name in columns:
        if name.startswith(("train/", "val/")) and not name.endswith(("/samples", "_classes")):
            runs = pd.concat([curve(record, name) for record in variant.records], axis=1).dropna()
            if len(runs):
                few = np.arange(len(runs)) * POINTS // max(len(runs), POINTS)
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


def table_html(frame: pd.DataFrame, caption: str) -> str:
    """A table whose first column names its rows."""
    heads = "".join(f'<th scope="col">{safe(str(name))}</th>' for name in frame)
    rows = []
    for first, *rest in frame.itertuples(index=False):
        cells = "".join(f"<td>{markup(value)}</td>" for value in rest)
        rows.append(f'<tr><th scope="row">{markup(first)}</th>{cells}</tr>')
    body = "\n".join(rows)
    return f"<table><caption>{safe(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def safe(text: str) -> str:
    """Text in one line, as HTML."""
    return escape(plain(text))


class Markup(str):
    """A string that is HTML already."""


def markup(value: Any) -> str:
    return value if isinstance(value, Markup) else safe(str(value))


def variants_table(comparison: Comparison) -> str:
    """The table of variants; the charts' script fills in the columns of differences."""
    frame = {}
    for column in columns(comparison):
        values, heading = [safe(value) for value in column.values], column.heading
        if column.key == "cell":
            values = [f'<span class="key" data-key="{row}">{value}</span>' for row, value in enumerate(values)]
        if column.key in ("difference", "verdict"):
            kind, heading = column.key, column.key
            values = [f'<span data-row="{row}" data-kind="{kind}">{value}</span>' for row, value in enumerate(values)]
        frame[heading] = [Markup(value) for value in values]
    return table_html(pd.DataFrame(frame, dtype=object), f"Means over seeds, {comparison.split} split")


def differing_tables(comparison: Comparison) -> str:
    """Whatever differs between the runs, a table for each class."""
    found = []
    for kind in KINDS:
        rows = [
            {"what": each.name, "value": value, "in": ", ".join(who)}
            for each in comparison.differing
            if each.kind == kind
            for value, who in each.values.items()
        ]
        if rows:
            table = in_box(table_html(pd.DataFrame(rows), f"Differs: {kind}"))
            found.append(table if kind == "costs fairness" else f"<details><summary>{kind}</summary>{table}</details>")
    return "".join(found) or "<p>Nothing differs between the runs but their seeds.</p>"


def runs_table(comparison: Comparison) -> str:
    """One row per kept run."""
    rows = []
    for record in comparison.records:
        metrics = record.metrics(comparison.split)
        row = {"run": record.folder, "cell": record.variant[1], "seed": record.seed}
        row |= {name: metric_named(name).format(metrics.get(name)) for name in comparison.metrics}
        row |= {"steps": f"{record.results.steps:,}", "time": f"{record.results.wall_time_seconds:,.0f} s"}
        rows.append(row | {"commit": commit(record), "hardware": record.hardware})
    return table_html(pd.DataFrame(rows), "One row per run")


def commit(record: Record) -> str:
    git = record.environment["git"]
    return (git["commit"] or "-")[:8] + ("+" if git["dirty"] else "")


def left_out_list(comparison: Comparison) -> str:
    if not comparison.excluded:
        return "<p>None: all runs can be compared.</p>"
    found = []
    for excluded in comparison.excluded:
        reasons = "".join(f"<li>{safe(reason)}</li>" for reason in excluded.reasons)
        text = f"<h3>{safe(excluded.folder)}</h3><ul>{reasons}</ul>"
        if excluded.changes:
            rows = [{"option": n, "this run": a, "the reference": b} for n, (a, b) in excluded.changes.items()]
            caption = f"Its config beside that of {excluded.reference}"
            text += in_box(table_html(pd.DataFrame(rows), caption))
        found.append(f"<article>{text}</article>")
    return "".join(found)


def records_table(comparison: Comparison) -> str:
    """Where the kept runs took place: places as columns, what differs between them as rows; then what all share."""
    runs: dict[tuple, list[str]] = {}
    for record in comparison.records:
        place = {name: str(value) for name, value in place_of(record).items()}
        runs.setdefault(tuple(sorted(place.items())), []).append(record.folder)
    places = [dict(place) for place in runs]
    names = list(dict.fromkeys(name for place in places for name in place))
    values = {name: [place.get(name, "-") for place in places] for name in names}
    same = [{"what": name, "all runs": found[0]} for name, found in values.items() if len(set(found)) == 1]
    equal = in_box(table_html(pd.DataFrame(same), "Of all runs")) if same else ""
    text = f"<details><summary>What all runs share</summary>{equal}</details>"
    if len(places) == 1:
        return f"<p>All runs were made in the same environment.</p>{text}"
    letters = [f"place {number}" for number in range(1, len(places) + 1)]
    rows = [{"what": n, **dict(zip(letters, found, strict=True))} for n, found in values.items() if len(set(found)) > 1]
    who = [{"place": letter, "runs": ", ".join(found)} for letter, found in zip(letters, runs.values(), strict=True)]
    differs = in_box(table_html(pd.DataFrame(rows), "What differs between the environments"))
    return f"{differs}<details><summary>Which runs</summary>{in_box(table_html(pd.DataFrame(who), 'Runs'))}</details>{text}"


def place_of(record: Record) -> dict[str, Any]:
    """Commit, hardware, versions."""
    where = record.environment
    found = {"commit": commit(record), "hardware": record.hardware, "platform": where["platform"]}
    found |= {"python": where["python"], "CUDA": where["cuda"] if where["gpus"] else "-"}
    found |= {f"torch {name}": value for name, value in where["torch"].items()}
    return found | {f"package {name}": version for name, version in where["packages"].items()}


def in_box(table: str) -> str:
    """A table that scrolls by itself."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'
