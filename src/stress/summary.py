"""What --stress found, as a table in the terminal and as a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..metrics.registry import metric_named
from ..pictures.style import CYCLE, QUIET, picture
from ..report.terminal import Column, print_table, say

LEVELS = range(1, 6)


def grouped(record: dict[str, Any]) -> Iterator[tuple[str, str, dict[int, dict]]]:
    """Modality, name and conditions by level, in the order that they were measured."""
    found: dict[tuple[str, str], dict[int, dict]] = {}
    for condition in record["conditions"]:
        place = " + ".join(condition["modalities"]), condition["name"]
        found.setdefault(place, {})[condition["level"]] = condition
    for (modality, name), levels in found.items():
        yield modality, name, levels


def sample_counts(record: dict[str, Any]) -> str:
    """How many samples were measured."""
    count, whole = record["samples"], record["of"]
    return f"{count:,} test samples" if count == whole else f"{count:,} of {whole:,} test samples, spread evenly"


def print_stress(record: dict[str, Any]) -> None:
    """A row for each kind of damage: the metric at its five levels, and what the hardest costs."""
    metric, rows = metric_named(record["metric"]), list(grouped(record))
    clean, missing = record["clean"][metric.name], any(name == "missing" for _, name, _ in rows)
    say(f"{metric.title} on clean inputs: {metric.format(clean)}, {sample_counts(record)}")

    def cell(levels: dict[int, dict], level: int) -> str:
        return metric.format(levels[level]["metrics"][metric.name]) if level in levels else "-"

    def cost(levels: dict[int, dict]) -> str:
        found = levels[max(levels)]["difference"]
        if found is None:
            return metric.format(levels[max(levels)]["metrics"][metric.name] - clean, signed=True)
        low, high = (metric.format(found[end], signed=True) for end in ("low", "high"))
        return f"{metric.format(found['mean'], signed=True)} ({low} to {high})"

    print_table(
        [
            Column("modality", "modality", [modality for modality, _, _ in rows], name=True),
            Column("damage", "damage", [name for _, name, _ in rows], name=True),
            *([Column("missing", "missing", [cell(levels, 0) for _, _, levels in rows])] if missing else []),
            *(
                Column(
                    f"level{n}", f"level {n}", [cell(levels, n) for _, _, levels in rows], rank=2 if n in (2, 4) else 0
                )
                for n in LEVELS
            ),
            Column("cost", "hardest minus clean", [cost(levels) for _, _, levels in rows]),
        ]
    )
    if calibration := record.get("calibration"):
        before, after = calibration["clean"], calibration["with_temperature"]
        say(
            f"calibration error {before['ece']:.4f}, {after['ece']:.4f} at the temperature fitted on val, "
            f"{calibration['temperature']:.3f}; Brier {before['brier']:.4f}; negative log-likelihood {before['nll']:.4f}; "
            f"right of the surest half {before['accuracy_at_50']:.4f}, of all {before['accuracy']:.4f}",
            wrap=True,
        )


def draw_stress(record: dict[str, Any], path: Path, title: str) -> None:
    """A panel for each modality: the metric over the levels of each damage, missing modalities as dashed lines."""
    metric = metric_named(record["metric"])
    clean = record["clean"][metric.name]
    panels: dict[str, list[tuple[str, dict[int, dict]]]] = {}
    missing: list[tuple[str, float]] = []
    for modality, name, levels in grouped(record):
        if name == "missing":
            missing.append((modality, levels[0]["metrics"][metric.name]))
        else:
            panels.setdefault(modality, []).append((name, levels))
    counts = Counter(name for lines in panels.values() for name, _ in lines)
    shared = [name for name, count in counts.items() if count == len(panels)]  # have one colour in all panels
    with picture(path, 4.2 * len(panels), 3.0, f"{title}\n{sample_counts(record)}") as figure:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for panel, (modality, lines) in zip(axes, panels.items(), strict=True):
            names = [*shared, *(name for name, _ in lines if name not in shared)]
            for name, levels in lines:
                colour = CYCLE[names.index(name) % len(CYCLE)]
                points = [clean, *(levels[n]["metrics"][metric.name] for n in LEVELS)]
                panel.plot([0, *LEVELS], points, "o-", color=colour, markersize=3, label=name)
            for gone, value in missing:
                panel.axhline(value, color=QUIET, linestyle="--", linewidth=0.8)
                panel.annotate(f"without {gone}", (0, value), fontsize=7, color=QUIET, va="bottom")
            panel.set(title=modality, xlabel="level of damage; 0: clean inputs")
            panel.grid(alpha=0.25, linewidth=0.5)
            panel.legend(fontsize=7, loc="center left")
        axes[0].set_ylabel(metric.title)
