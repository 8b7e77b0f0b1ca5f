"""Write the tables in docs/ from the CSV files in results/: `python -m src.benchmarks.readme_tables`.

A table is everything between the lines `<!-- table NAME -->` and `<!-- end -->`, where NAME is a key of `TABLES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from datamodules import UserError

from ..config.command import Parser, run_command
from ..config.error_messages import suggest
from ..metrics.registry import main_metric
from ..report.comparison import limits_of
from ..stats.claims import judge, parse_claim
from ..stats.intervals import Estimate, of_seeds

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"(<!-- table (?P<name>\S+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)
DESCRIPTION = """Update the tables in docs/*.md from the CSV files in results/."""


def main(args: list[str] | None = None) -> list[Path]:
    """Updates the pages and returns those that changed."""
    parser = Parser("python -m src.benchmarks.readme_tables", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is out of date")
    options = parser.parse_args(args)
    changed = []
    for page in sorted(ROOT.glob("docs/*.md")):
        text = page.read_text()
        new = update_tables(text)
        if new != text:
            changed.append(page)
            print(f"{page.relative_to(ROOT)}: {'tables are out of date' if options.check else 'written'}")
            if not options.check:
                page.write_text(new)
    if options.check and changed:
        raise SystemExit(1)
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

    return TABLE.sub(table, page)


def load_results(name: str, suffix: str = "") -> pd.DataFrame:
    """The committed CSV of a benchmark, or of the cells of a suite (suffix `_cells`), from any hardware."""
    pattern = rf"{name}_[a-z0-9-]+-threads{suffix}.csv"
    files = [file for file in sorted(ROOT.glob("results/*.csv")) if re.fullmatch(pattern, file.name)]
    if not files:
        raise UserError(
            f"results/ has no {name}_HARDWARE{suffix}.csv: create it with src.benchmark or src.compare --csv"
        )
    older = {"against": "reference", "difference_seeds": "difference"}
    older |= {f"difference_seeds_{bound}": f"difference_{bound}" for bound in ("low", "high")}
    return pd.read_csv(files[-1]).rename(columns=older)


def markdown(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(header), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def seconds(value: float) -> str:
    return f"{value:.3g} s"


def side_by_side(name: str, labels: dict[str, str], time_ratio: str, memory_ratio: str) -> str:
    """Time and memory of a training step against the fastest other implementation, at every shape."""
    frame, rows = load_results(name), []
    for shape, label in labels.items():
        cases = {case["implementation"]: case for case in frame[frame["shape"] == shape].to_dict("records")}
        ours, checkpointed = cases.pop("ours"), cases.pop("ours, checkpointed", None)
        cases.pop("ours, without axes", None)
        best = min(case["forward_backward_s"] for case in cases.values())
        row = [label, seconds(ours["forward_backward_s"]), seconds(best)]
        row += [f"{case[memory_ratio]:.2f}" for case in (ours, checkpointed) if case]
        row.insert(3, f"{ours[time_ratio]:.2f}")
        if "executed_gflops" in ours:
            most = max(case["executed_gflops"] for case in cases.values())
            row += [f"{ours['executed_gflops'] / most:.2f}", f"{100 * ours['share_of_product_limit']:.0f} %"]
        rows.append(row)
    header = ["shape", "ours", "best peer", "time", "memory of a step", "with checkpointing"]
    return markdown([*header, "operations", "of matrix speed"][: len(rows[0])], rows)


def perceiver() -> str:
    labels = {
        "small": "small: 32 x 784 elements, 64 latents of 128",
        "audioset": "AudioSet: 13,024 elements, 512 latents of 1024",
        "imagenet": "ImageNet: 50,176 elements, 512 latents of 1024",
        "imagenet_2": "the same, 2 images",
    }
    return side_by_side("perceiver", labels, "forward_backward_ratio", "memory_ratio")


def scaling() -> str:
    frame = load_results("scaling")
    last = frame.groupby("model", sort=False).last()
    rows = [
        [model, f"{row.elements:,.0f}", f"N^{row.step_s_exponent:.2f}", f"N^{row.peak_mib_exponent:.2f}"]
        for model, row in last.iterrows()
    ]
    return markdown(["model", "measured up to", "time grows as", "memory grows as"], rows)


def lambda_peers() -> str:
    shapes = load_results("lambda_peers")["shape"].unique()
    labels = {shape: re.sub(r"(r=)?(\d+)$", r"scope \2", shape) for shape in shapes}
    return side_by_side("lambda_peers", labels, "time_ratio", "memory_ratio")


def lambda_networks() -> str:
    rows = [
        [row["network"], f"{row['parameters'] / 1e6:.1f} M", seconds(row["forward_backward_s"]), f"{row['ratio']:.2f}"]
        for row in load_results("lambda_networks").to_dict("records")
    ]
    return markdown(["network", "parameters without head", "step", "ratio to ResNet-50"], rows)


def lambda_efficientnet() -> str:
    frame = load_results("lambda_efficientnet")
    rows = []
    for ours, other in zip(frame.iloc[::2].itertuples(), frame.iloc[1::2].itertuples(), strict=True):
        row = [f"{ours.network} at {ours.side}", f"{ours.published_top1} %", f"{other.network} at {other.side}"]
        rows.append([*row, f"{other.published_top1} %", f"{ours.forward_backward_speedup:.2f} times as fast"])
    return markdown(["network", "published", "EfficientNet", "published", "training, here"], rows)


def overhead() -> str:
    frame = load_results("overhead").dropna(subset="step_s")
    rows = [[row["case"], f"{1000 * row['step_s']:.1f} ms", f"{row['ratio']:.3f}"] for row in frame.to_dict("records")]
    return markdown(["step", "median", "ratio to the bare loop"], rows)


def processes() -> str:
    frame = load_results("overhead").dropna(subset="samples_per_s")
    rows = [[row["case"], f"{row['samples_per_s']:.0f}", f"{row['gain']:.2f}"] for row in frame.to_dict("records")]
    return markdown(["case", "samples/s", "speed-up"], rows)


def suite(name: str, metrics: dict[str, str]) -> Callable[[], str]:
    """The cells of a suite: means over seeds with 95 % intervals. `metrics` maps columns of the CSV to headings."""

    def table() -> str:
        frame = load_results(name, "_cells").dropna(axis=1, how="all")
        difference = [f"minus {frame['reference'].iloc[0]}"] if "difference" in frame else []  # not for one cell
        header = ["cell", "seeds", *metrics.values(), *difference, "parameters"]
        return markdown(header, (suite_row(row, list(metrics)) for _, row in frame.iterrows()))

    return table


def suite_row(row: pd.Series, metrics: list[str]) -> list[str]:
    columns = [str(row["cell"]), str(row["seeds"])]
    columns += [interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]) for metric in metrics]
    if "difference" in row:
        columns.append(interval(row["difference"], row["difference_low"], row["difference_high"], "+"))
    return [*columns, f"{row['parameters'] / 1e6:.2f} M"]


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    """In percent, such as 70.5 ± 7.5; only the mean if there is one seed."""
    if pd.isna(mean):
        return ""
    text = f"{100 * mean:{sign}.1f}"
    return text if pd.isna(low) else f"{text} ± {50 * (high - low):.1f}"


# What results.md tells of each suite, as comparisons; see src/stats/claims.py
CLAIMS = {
    "permuted_fashion_mnist": {
        "perceiver = random_perceiver within 0.1 points": "permuting the pixels does not change a Perceiver",
        "transformer = random_transformer within 0.1 points": "nor a Transformer",
        "resnet > random_resnet": "an order of each image's own breaks a ResNet",
        "vit > random_vit": "it breaks a ViT",
        "lambda_resnet > random_lambda_resnet": "it breaks a LambdaResNet",
        "resnet > fixed_resnet": "one fixed order for all images hurts a ResNet",
        "vit > fixed_vit": "it hurts a ViT",
        "lambda_resnet > fixed_lambda_resnet": "it hurts a LambdaResNet",
    },
    "digits_ablations": {
        "cross4_interleaved > cross1": "four cross-attends are better than one",
        "cross4_interleaved > unshared": "sharing weights prevents overfitting",
        "cross4_interleaved > cross4_only": "latent transformers are needed",
        "cross4_interleaved > trivial_hog": "a Perceiver beats ridge regression on oriented gradients",
    },
    "garments_spoken": {
        "av > video": "audio and video together beat video",
        "av > audio": "and they beat audio",
        "av_dropout > video": "with modality dropout they beat video",
    },
    "language_id": {
        "transformer > perceiver": "from raw sound, a Transformer beats a Perceiver of a quarter of its operations"
    },
    "furniture": {"perceiver > transformer": "on point clouds, a Perceiver beats a Transformer in the same minute"},
    "emoji": {"both > picture": "a Swahili name helps a picture"},
    "icons": {
        "resnet > trivial_hog": "a ResNet beats ridge regression on oriented gradients",
        "perceiver > trivial_hog": "so does a Perceiver",
        "perceiver_shifted > trivial_hog": "so does one whose training pictures are moved",
    },
    "probe": {
        "probe > probe_random": "training on other classes helps a linear probe",
        "fine_tuned > from_random": "and the training of all weights",
    },
}


def claims(name: str) -> str:
    """What the runs of a suite say of its claims: as compare judged them with their predictions, else over seeds alone."""
    if any(ROOT.glob(f"results/{name}_*_claims.csv")):
        judged = load_results(name, "_claims").rename(columns={"claim": "text"})
        judged["text"] = judged["text"].str.partition(" on ")[0]
    else:
        judged = judged_over_seeds(name)
    rows = []
    for row in judged.to_dict("records"):
        gap = interval(row["difference"], row["difference_low"], row["difference_high"], "+")
        rows.append([CLAIMS[name][row["text"]], f"`{row['text']}`", gap, f"**{row['verdict']}**"])
    return markdown(["claim", "as a comparison", "difference in points", "verdict"], rows)


def judged_over_seeds(name: str) -> pd.DataFrame:
    """The claims of a suite of which results/ has the metrics of all runs alone."""
    frame = load_results(name)
    frame["cell"] = frame["cell"].str.replace(r"_fold\d+$", "", regex=True)
    metric = str(main_metric(frame.columns))
    values = frame.groupby(["cell", "seed"])[metric].mean()

    def difference(first: str, second: str, _: str) -> Estimate | None:
        found = (values[first] - values[second]).dropna()
        return of_seeds(found) if len(found) else None

    judged = judge(list(map(parse_claim, CLAIMS[name])), metric, list(frame["cell"].unique()), difference)
    return pd.DataFrame(
        {"text": each.claim.text, "verdict": each.word} | limits_of("difference", each.difference) for each in judged
    )


def statistics() -> str:
    """The simulation of intervals and verdicts: the lowest and the highest share over all cases with so many seeds."""
    frame, rows = load_results("statistics"), []
    unlike = frame["seed_spread"].astype(str).str.contains("and")
    frame.loc[unlike, "measure"] += ", unlike spreads"
    for (measure, seeds), cases in frame.groupby(["measure", "seeds"], sort=False):
        other = [span(cases[name]) for name in ("over_samples_alone", "without_moderation", "without_correction")]
        rows.append([measure, seeds, len(cases), span(cases["share"]), *other])
    others = ["over samples alone", "without moderation", "and without correction"]
    return markdown(["measure", "seeds", "cases", "here", *others], rows)


def span(values: pd.Series) -> str:
    low, high = 100 * values.min(), 100 * values.max()
    return "" if pd.isna(low) else f"{low:.1f} %" if low == high else f"{low:.1f} to {high:.1f} %"


TOP1 = {"top1": "top-1, %"}
TABLES: dict[str, Callable[[], str]] = {
    "perceiver": perceiver,
    "scaling": scaling,
    "lambda_peers": lambda_peers,
    "lambda_networks": lambda_networks,
    "lambda_efficientnet": lambda_efficientnet,
    "overhead": overhead,
    "processes": processes,
    "statistics": statistics,
    "digits_ablations": suite("digits_ablations", TOP1),
    "permuted_fashion_mnist": suite("permuted_fashion_mnist", TOP1),
    "garments_spoken": suite("garments_spoken", {"map": "mAP, %"}),
    "language_id": suite("language_id", TOP1),
    "furniture": suite("furniture", TOP1),
    "emoji": suite("emoji", TOP1),
    "icons": suite("icons", TOP1),
    "recipes": suite("recipes", TOP1),
    "probe": suite("probe", {"top1": "trained map, top-1, %", "ridge_top1": "closed form, top-1, %"}),
    "composed": suite("composed", {"map_50": "box AP50, %", "segm_map_50": "mask AP50, %"}),
    **{f"claims_{name}": partial(claims, name) for name in CLAIMS},
}


if __name__ == "__main__":
    run_command(main)
