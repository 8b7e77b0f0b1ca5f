"""A comparison as a W&B run of its own: tables, images and the page."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot  # noqa: F401  (wandb.Image knows a figure only once pyplot has been imported)
import pandas as pd
import wandb

from ..runs.wandb_logger import wandb_mode
from .charts import charts
from .comparison import Comparison
from .html import html_page


def log_comparison(comparison: Comparison, runs: pd.DataFrame) -> None:
    """In the group of the runs where they have one experiment in common; offline unless WANDB_MODE says otherwise."""
    wandb_mode()
    groups = {variant.name[0] for variant in comparison.variants}
    group = groups.pop() if len(groups) == 1 else None
    left_out = pd.DataFrame(
        [{"run": out.folder, "reasons": "; ".join(out.reasons)} for out in comparison.excluded],
        columns=["run", "reasons"],
    )
    place = f"compare/{comparison.split}"
    place_of_files = Path("runs", "compared")  # not the working folder, which may be a checkout
    place_of_files.mkdir(parents=True, exist_ok=True)
    settings = {"project": "bytebench", "job_type": "compare", "name": "compare", "dir": place_of_files}
    with wandb.init(group=group, **settings) as run:
        run.log(
            {
                place: wandb.Table(dataframe=comparison.frame()),
                f"{place}_runs": wandb.Table(dataframe=runs),
                f"{place}_left_out": wandb.Table(dataframe=left_out),
                f"{place}_page": wandb.Html(html_page(comparison)),
                **{f"{place}_{name}": wandb.Image(figure) for name, figure in charts(comparison).items()},
            }
        )
