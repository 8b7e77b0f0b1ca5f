"""The page of one variant: what it reached, where it errs, and everything that it takes to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape

from ..config.secrets import redacted_text
from ..metrics.registry import metric_named
from ..report.comparison import COSTS, Comparison, VariantResults
from ..report.html import (
    claims_table,
    confusion,
    curves,
    json_markup,
    name_of,
    per_class,
    places,
    rounded,
    runs_table,
    templates,
)
from ..report.records import Record
from ..report.text import with_half
from .samples import Gallery
from .worst import Worst

POINTS = 30  # of a curve
CLASSES = 100  # shown


def entry_page(
    comparison: Comparison,
    number: int,
    names: Sequence[str],
    left: Sequence[str],
    worst: Worst | None,
    gallery: Gallery,
) -> str:
    """The whole page.

    Args:
        comparison: that the variant is in.
        number: of the variant.
        names: file names of all variants.
        left: files that are too large to be offered.
        worst: its worst test samples, if they are known.
        gallery: what may be shown of them.
    """
    variant = comparison.variants[number]
    first = variant.records[0]
    experiment = ", ".join(sorted({each.name[0] for each in comparison.variants}))
    return (
        templates(Path(__file__).parent)
        .get_template("entry.html")
        .render(
            title=variant.label,
            root="../",
            trail=[("All experiments", "../index.html"), (experiment, "index.html")],
            summary=f"{comparison.metric} {with_half(variant.interval(comparison.metric))} on {comparison.split}",
            verified=sum(record.verified for record in variant.records),
            runs=len(variant.records),
            metrics=metrics_table(comparison, variant),
            verdicts=verdicts_table(comparison, number, names),
            claims=[
                row
                for row, judged in zip(claims_table(comparison), comparison.claims, strict=True)
                if variant.label in (judged.claim.first, judged.claim.second)
            ],
            classes=classes_table(variant) if comparison.split == "test" else [],
            worst=worst.rows if worst else [],
            gallery=gallery,
            run_table=runs_table(variant.records, comparison),
            command=redacted_text(shlex.join(map(str, first.environment.get("command", [])))) or "not recorded",
            config=Markup(escape((first.run.folder / "config.yaml").read_text(encoding="utf-8", errors="replace"))),
            facts=data_facts(first),
            places=places(variant.records),
            archive=f"{quote(names[number])}.tar.xz",
            left=left,
            data=json_markup(runs_data(comparison, variant)),
        )
    )


def runs_data(comparison: Comparison, variant: VariantResults) -> dict[str, Any]:
    """What the charts draw: every run as they draw variants elsewhere."""
    metric = comparison.metric
    cells = []
    for record in variant.records:
        alone = VariantResults(variant.name, name_of(record.repeat), [record])
        value = record.metrics(comparison.split).get(metric)
        costs = {name: rounded([alone.cost(name)])[0] for name in COSTS}
        cells.append(
            {
                "name": alone.label,
                "interval": [*rounded([value]), None, None],
                "published": None,
                "values": [],
                "costs": costs,
                "curves": {name: found[:2] for name, found in curves(alone, POINTS).items()},  # one run has no band
            }
        )
    lower = not metric_named(metric).higher_is_better
    return {"metric": metric, "lower": lower, "split": comparison.split, "cells": cells}


def metrics_table(comparison: Comparison, variant: VariantResults) -> list[dict[str, str]]:
    """Every metric with its interval."""
    found = []
    for metric in comparison.metrics:
        if metric in variant.values:
            estimate = variant.interval(metric)
            values = ", ".join(metric_named(metric).format(v) for _, v in sorted(variant.values[metric].items()))
            found.append({"metric": metric, "mean": with_half(estimate), "runs": values})
    return found


def verdicts_table(comparison: Comparison, number: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Against every other variant."""
    found = []
    for other, variant in enumerate(comparison.variants):
        if (verdict := comparison.verdicts.get((number, other))) is not None:
            link = Markup('<a href="{}.html">{}</a>').format(quote(names[other]), variant.label)
            row = {"against": link, "difference": with_half(comparison.pairs.get((number, other)), "+.4f")}
            found.append(row | {"verdict": verdict.text, "p": f"{verdict.p:.3g}"})
    return found


def classes_table(variant: VariantResults) -> list[dict[str, str]]:
    """How well each class is found, the worst first."""
    records = [record for record in variant.records if record.examined.arrays]
    if not records:
        return []
    arrays = frozenset.intersection(*(record.examined.arrays for record in records))
    classes = records[0].data["spec"]["classes"]
    if "predicted" in arrays:
        table = np.asarray(sum(confusion(record, len(classes)) for record in records))
        total, right = table.sum(axis=1), table.diagonal()
        recall = right / np.maximum(total, 1)
        wrong = table - np.diag(right)
        rows = []
        for c in sorted(np.flatnonzero(total), key=lambda c: recall[c])[:CLASSES]:
            taken = classes[wrong[c].argmax()] if wrong[c].any() else "-"
            share = f"{wrong[c].max() / total[c]:.1%}" if wrong[c].any() else "-"
            seen = f"{total[c] // len(records):,}"
            rows.append(
                {"class": classes[c], "samples": seen, "recall": f"{recall[c]:.4f}", "most often taken for": taken}
            )
            rows[-1]["in"] = share
        return rows
    if "scores" in arrays and classes and "map" in variant.values:
        found = np.mean([per_class(record) for record in records], axis=0)
        order = sorted(np.flatnonzero(np.isfinite(found)), key=lambda c: found[c])[:CLASSES]
        return [{"class": classes[c], "average precision": f"{found[c]:.4f}"} for c in order]
    return []


def data_facts(record: Record) -> list[dict[str, str]]:
    """The data, as their fingerprints say."""
    data = record.data
    facts = {"data set": data["dataset"], "fingerprint": data["fingerprint"], "task": data["spec"]["task"]}
    facts |= {"modalities": ", ".join(data["spec"]["modalities"]), "classes": f"{len(data['spec']['classes']):,}"}
    for name, split in data["splits"].items():
        facts[f"{name} split"] = f"{split['samples']:,} samples, members {split['keys_sha256']}"
    facts["identity"] = record.identity
    if record.results.suite is not None:
        facts |= {"suite": record.results.suite.name, "source": record.results.suite.source}
        facts["frozen claims and choices"] = record.results.suite.frozen or "not recorded"
    return [{"what": name, "value": value} for name, value in facts.items()]
