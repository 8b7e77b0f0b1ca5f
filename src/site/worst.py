"""The test samples that a variant errs on most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.registry import metric_named
from ..report.comparison import Comparison, VariantResults
from ..report.records import Record

WORST = 30  # samples of a table


@dataclass(frozen=True)
class Worst:
    """The worst test samples of a variant, the worst first.

    Args:
        record: a run that was tested on them.
        rows: of their table: `sample`, its mean score, and what was `true` and `predicted`.
    """

    record: Record
    rows: list[dict[str, str]]


def worst_samples(comparison: Comparison, variant: VariantResults) -> Worst | None:
    """The test samples that contribute least to the main metric, mean over the runs that kept predictions of the same; None
    where no run did."""
    metric = comparison.metric
    records = [record for record in variant.records if metric in record.examined.parts]
    if comparison.split != "test" or not records:
        return None
    first = records[0].examined.parts[metric]
    records = [r for r in records if np.array_equal(r.examined.parts[metric].samples, first.samples)]
    score = np.mean([record.examined.parts[metric].values for record in records], axis=0)
    order = np.argsort(score if metric_named(metric).higher_is_better else -score, kind="stable")[:WORST]
    found = [record.predictions or {} for record in records]
    names = found[0].get("key", first.samples)
    classes = records[0].data["spec"]["classes"]
    rows = []
    for place in order:
        row = {"sample": str(names[place]), f"{metric}, mean": f"{score[place]:.3f}"}
        if all("predicted" in arrays for arrays in found):
            row["true"] = classes[found[0]["target"][place]]
            row["predicted"] = tally(classes[arrays["predicted"][place]] for arrays in found)
        elif all("scores" in arrays and arrays["target"].ndim == 2 for arrays in found):
            row["true"] = joined(classes, found[0]["target"][place] > 0.5)
            row["predicted"] = tally(joined(classes, arrays["scores"][place] > 0) for arrays in found)
        rows.append(row)
    return Worst(records[0], rows)


def joined(classes: Sequence[str], chosen: np.ndarray) -> str:
    """The names of some labels."""
    return " + ".join(classes[number] for number in np.flatnonzero(chosen).tolist()) or "nothing"


def tally(names: Iterable[str]) -> str:
    """What several runs say, the most frequent first, and how many of them say it."""
    counts = Counter(names).most_common()
    return "; ".join(f"{name} ({count} runs)" if count > 1 else name for name, count in counts)
