"""Tables of suites, each from its own CSV files: variants, and what became of claims."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from ..metrics.registry import main_metric
from ..report.comparison import limits_of
from ..stats.claims import judge, parse_claim
from ..stats.intervals import Estimate, of_seeds
from .text import interval, load_results, markdown, results


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


def permuted() -> str:
    """Of permuted_fashion_mnist: two models with pixels in order, and with each image's in an order of its own."""
    cells = {row["cell"]: row for row in load_results("permuted_fashion_mnist", "_cells").to_dict("records")}
    rows = []
    for name, title in (("perceiver", "Perceiver"), ("resnet", "ResNet-18")):
        pair = [cells[cell] for cell in (name, f"random_{name}")]
        shown = [interval(row["top1"], row["top1_low"], row["top1_high"]) for row in pair]
        rows.append([f"{title}, {pair[0]['parameters'] / 1e6:.1f} M parameters", *(f"{value} %" for value in shown)])
    return markdown(["model", "pixels in order, top-1", "shuffled, top-1"], rows)


def lost() -> str:
    """Of permuted_fashion_mnist: how many points a ResNet loses."""
    judged = {row["text"]: row for row in judged_over_seeds("permuted_fashion_mnist").to_dict("records")}
    return f"{100 * judged['resnet > random_resnet']['difference']:.0f}"


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
    "transfer": {"pretrained > random": "training on scenes of digits helps to find garments"},
    "transfer_garments": {"pretrained > random": "training on other classes helps with few images"},
    "probe": {
        "probe > probe_random": "training on other classes helps a linear probe",
        "fine_tuned > from_random": "and the training of all weights",
    },
}


def claims(name: str) -> str:
    """What the runs of a suite say of its claims: as compare judged them with their predictions, else over seeds alone."""
    if any(results().glob(f"{name}_*_claims.csv")):
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


TOP1 = {"top1": "top-1, %"}
FOUND = {"map_50": "box AP50, %", "segm_map_50": "mask AP50, %", "segm_map": "mask AP, %"}
TABLES: dict[str, Callable[[], str]] = {
    "digits_ablations": suite("digits_ablations", TOP1),
    "permuted_fashion_mnist": suite("permuted_fashion_mnist", TOP1),
    "permuted": permuted,
    "permuted_lost": lost,
    "garments_spoken": suite("garments_spoken", {"map": "mAP, %"}),
    "language_id": suite("language_id", TOP1),
    "furniture": suite("furniture", TOP1),
    "emoji": suite("emoji", TOP1),
    "icons": suite("icons", TOP1),
    "recipes": suite("recipes", TOP1),
    "probe": suite("probe", {"top1": "trained map, top-1, %", "ridge_top1": "closed form, top-1, %"}),
    "composed_lambda": suite("composed_lambda", FOUND),
    "transfer": suite("transfer", FOUND),
    "transfer_garments": suite("transfer_garments", TOP1),
    **{f"claims_{name}": partial(claims, name) for name in CLAIMS},
}
