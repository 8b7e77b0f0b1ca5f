"""Tables of `configs/suites/bytebench.yaml`: architectures against data, from the CSV files beside its archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from datamodules import UserError

from ..metrics.registry import main_metric
from .text import interval, markdown, results

ARCHITECTURES = {
    "perceiver": "Perceiver",
    "transformer": "Transformer",
    "lambda": "LambdaNet",
    "resnet": "ResNet",
    "vit": "ViT",
    "lambda_resnet": "LambdaResNet",
}
TITLES = {"top1": "top-1", "map": "mAP", "segm_map": "mask AP"}


@dataclass(frozen=True)
class Form:
    """Data in one form: a row of the table.

    Args:
        suite: whose runs they are.
        title: of the row.
        prefix: of the names of its variants.
        baselines: the trivial baselines that read this form.
    """

    suite: str
    title: str
    prefix: str = ""
    baselines: tuple[str, ...] = ()


FORMS = (
    Form("bytebench_garments", "garments, pixels", baselines=("trivial_hog",)),
    Form("bytebench_garments", "garments, own order of pixels", "own_order_"),
    Form("bytebench_icons", "icons, pixels", baselines=("trivial_hog",)),
    Form("bytebench_icons", "icons, points of outlines", "outline_"),
    Form("bytebench_icons", "icons, bytes of paths", "path_"),
    Form("bytebench_emoji", "emoji, picture and name"),
    Form("bytebench_emoji", "emoji, picture", "picture_", ("trivial_hog",)),
    Form("bytebench_emoji", "emoji, name", "name_", ("trivial_byte_n_grams",)),
    Form("bytebench_languages", "languages, raw sound", baselines=("trivial_log_mel",)),
    Form("bytebench_furniture", "furniture, points", baselines=("trivial_shape",)),
    Form("bytebench_spoken", "spoken garments, video and sound"),
    Form("bytebench_spoken", "spoken garments, video", "video_"),
    Form("bytebench_spoken", "spoken garments, sound", "audio_"),
    Form("bytebench_composed", "scenes, masks of digits"),
)


def load(table: str) -> pd.DataFrame:
    """A CSV file of the archives."""
    path = results() / "bytebench" / f"{table}.csv"
    if not path.is_file():
        raise UserError(f"results/bytebench has no {table}.csv: `python -m src.tables` makes it from the archives")
    return read(path, path.stat().st_mtime_ns)


@cache
def read(path: Path, changed: int) -> pd.DataFrame:
    """The content of a file that was last changed at this time."""
    return pd.read_csv(path)


def whole_budget(table: str) -> pd.DataFrame:
    """The rows of a table that are of whole budgets, with a column `data`: the suite's name in short."""
    frame = load(table)
    names = frame["experiment"].str.removeprefix("bytebench_")
    return frame.assign(data=names)[~names.str.contains(r"_x[0-9.]+$")]


def of_suite(frame: pd.DataFrame, suite: str) -> dict[str, dict]:
    """The rows of a suite by their cells."""
    return {row["cell"]: row for row in frame[frame["experiment"] == suite].to_dict("records")}


def known_forms() -> list[Form]:
    """The forms of data that have results."""
    known = set(load("cells")["experiment"])
    return [form for form in FORMS if form.suite in known]


def metric_of(row: dict) -> str:
    """The metric that a row of cells is ranked by."""
    return str(main_metric(name for name, value in row.items() if pd.notna(value)))


def cells_of(form: Form) -> dict[str, dict]:
    """The rows of a form by architecture."""
    cells = of_suite(load("cells"), form.suite)
    return {name: cells[form.prefix + name] for name in ARCHITECTURES if form.prefix + name in cells}


def difference(form: Form, first: str, second: str) -> dict | None:
    """The row of a pair of architectures, first - second."""
    pairs = load("pairs")
    pairs = pairs[pairs["experiment"] == form.suite]
    names = form.prefix + first, form.prefix + second
    for (one, two), sign in ((names, 1), (names[::-1], -1)):
        found = pairs[(pairs["first"] == one) & (pairs["second"] == two)].to_dict("records")
        if found:
            row, low, high = found[0], found[0]["difference_low"], found[0]["difference_high"]
            verdict = {"better": "worse", "worse": "better"}.get(row["verdict"], row["verdict"])
            if sign == 1:
                return row
            limits = {"difference_low": -high, "difference_high": -low}
            return row | {"difference": -row["difference"], **limits, "verdict": verdict}
    return None


def best_of(form: Form) -> set[str]:
    """The architectures that no other is better than."""
    names = list(cells_of(form))

    def worse(name: str) -> bool:
        found = (difference(form, name, other) for other in names if other != name)
        return any(row is not None and row["verdict"] == "worse" for row in found)

    return {name for name in names if not worse(name)}


def matrix() -> str:
    """Means; bold where no other architecture is better."""
    rows = []
    for form in known_forms():
        cells, best = cells_of(form), best_of(form)
        metric = metric_of(cells["perceiver" if "perceiver" in cells else "resnet"])
        shown = [mean(cells.get(name), metric, name in best) for name in ARCHITECTURES]
        trivial = of_suite(load("cells"), form.suite)
        baselines = ", ".join(mean(trivial.get(name), metric) for name in form.baselines)
        rows.append([f"{form.title}, {TITLES[metric]}", *shown, baselines])
    return markdown(["data", *ARCHITECTURES.values(), "by hand"], rows)


def mean(row: dict | None, metric: str, bold: bool = False) -> str:
    if row is None:
        return ""
    text = f"{100 * row[metric]:.1f}"
    return f"**{text}**" if bold else text


def differences() -> str:
    """Every architecture minus the first of its form, with intervals."""
    rows = []
    for form in known_forms():
        first, *others = cells_of(form)
        shown = {first: "0"}
        for name in others:
            row = difference(form, name, first)
            if row is not None:
                shown[name] = interval(row["difference"], row["difference_low"], row["difference_high"], "+")
        rows.append([form.title, *(shown.get(name, "") for name in ARCHITECTURES)])
    return markdown(["data", *ARCHITECTURES.values()], rows)


def variants() -> str:
    """Every variant: its metric with an interval, costs, and what tuning chose."""
    trials, rows = load("trials"), []
    chosen = trials[trials["chosen"]].set_index(["experiment", "cell"])["value"]
    for row in whole_budget("cells").to_dict("records"):
        metric, place = metric_of(row), (row["experiment"], row["cell"])
        fold = (row["experiment"], f"{row['cell']}_fold0")
        rate = chosen.get(place, chosen.get(fold))
        found = interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
        costs = [millions(row["parameters"]), millions(row["flops_per_example"]), f"{row['wall_time_seconds']:.0f} s"]
        rows.append([row["data"], row["cell"], f"{row['seeds']}", found, *costs, "" if rate is None else f"{rate:.2g}"])
    return markdown(["data", "variant", "seeds", "%", "parameters", "operations", "a run", "rate"], rows)


def millions(value: float) -> str:
    return f"{value / 1e6:.3g} M" if value else ""


def claims() -> str:
    """What became of the claims that were written down before the runs."""
    rows = []
    for row in whole_budget("claims").to_dict("records"):
        gap = interval(row["difference"], row["difference_low"], row["difference_high"], "+")
        rows.append([row["data"], f"`{row['claim']}`", gap, f"**{row['verdict']}**"])
    return markdown(["data", "claim", "difference in points", "verdict"], rows)


def precision() -> str:
    """Half of the intervals of differences from the reference, over the variants of a suite."""
    rows = []
    for data, found in whole_budget("precision").groupby("data", sort=False):
        widest = found.loc[found["half_width"].idxmax()]
        shares = [f"{100 * found[name].mean():.0f} %" for name in ("from_seeds", "from_samples", "from_both")]
        take = "" if pd.isna(widest["it_would_take"]) else widest["it_would_take"]
        width = f"{100 * found['half_width'].median():.1f} ({100 * widest['half_width']:.1f})"
        rows.append([data, width, *shares, widest["clusters"] or "", take])
    header = ["data", "median (widest)", "from seeds", "from samples", "from both", "independent samples"]
    return markdown([*header, "1.5 points would take"], rows)


def stress() -> str:
    """Damaged inputs and calibration of every variant."""
    rows = []
    for row in whole_budget("stress").to_dict("records"):
        shown = [percent(row["clean"]), percent(row["hardest"])]
        worst = "" if pd.isna(row["worst"]) else f"{percent(row['worst'])} ({row['worst_damage']})"
        ece = [percent(row.get(name)) for name in ("ece_clean", "ece_scaled")]
        rows.append([row["data"], row["cell"], *shown, worst, percent(row["least_missing"]), *ece])
    header = ["data", "variant", "clean", "hardest, mean", "worst", "without a modality"]
    return markdown([*header, "calibration error", "with temperature"], rows)


def percent(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{100 * value:.1f}"


def budgets() -> Iterator[tuple[Form, str, list[dict]]]:
    """Forms and architectures that were trained with several budgets, and their cells from the smallest on."""
    cells = load("cells")
    for form in known_forms():
        names = [name for name in cells["experiment"].unique() if name.partition("_x")[0] == form.suite]
        for name in cells_of(form) if len(names) > 1 else ():
            found = [of_suite(cells, suite).get(form.prefix + name) for suite in names]
            rows = sorted((row for row in found if row), key=lambda row: row["training_samples"])
            if len(rows) > 1:
                yield form, name, rows


def cost_curves() -> str:
    rows, samples = [], []
    for form, name, found in budgets():
        metric = metric_of(found[0])
        shown = [interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]) for row in found]
        operations = found[-1]["flops_per_example"] * found[-1]["training_samples"]
        samples = [
            f"{share:.2g}" for share in (row["training_samples"] / found[-1]["training_samples"] for row in found)
        ]
        cost = [f"{operations / 1e12:.2g} T", f"{found[-1]['wall_time_seconds']:.0f} s"]
        rows.append([form.title, ARCHITECTURES[name], *shown, *cost])
    return markdown(
        ["data", "architecture", *(f"{share} of the budget" for share in samples), "operations", "a run"], rows
    )


def hours() -> str:
    """What the time was spent on."""
    frame = load("time").copy()
    frame["experiment"] = frame["experiment"].str.removeprefix("bytebench_").str.partition("_x")[0]
    rows, kinds = [], {"trial": "tuning", "run": "training and test", "baseline": "baselines"}
    for name, found in [*frame.groupby("experiment", sort=False), ("all", frame)]:
        of_kind = {
            row["kind"]: row for row in found.groupby("kind").sum(numeric_only=True).reset_index().to_dict("records")
        }
        shown = [
            f"{of_kind[kind]['runs']} in {of_kind[kind]['seconds'] / 3600:.2f} h" if kind in of_kind else ""
            for kind in kinds
        ]
        rows.append([name, *shown, f"{found['seconds'].sum() / 7200:.2f} h"])
    return markdown(["data", *kinds.values(), "on two cores"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "bytebench": matrix,
    "bytebench_differences": differences,
    "bytebench_variants": variants,
    "bytebench_claims": claims,
    "bytebench_precision": precision,
    "bytebench_stress": stress,
    "bytebench_budgets": cost_curves,
    "bytebench_hours": hours,
}
