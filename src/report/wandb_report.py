"""A comparison in W&B: a run with tables, images and the page; a workspace and a report for the runs that were compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  (wandb.Image knows a figure only once pyplot has been imported)
import pandas as pd
import wandb

from ..metrics.registry import metric_named
from ..runs.wandb_logger import wandb_mode
from .charts import charts
from .comparison import Comparison
from .html import html_page

PROJECT = "bytebench"
COSTS = {
    "parameters": "parameters",
    "flops_per_example": "FLOPs an example",
    "wall_time_seconds": "seconds of training",
}


def log_comparison(comparison: Comparison, runs: pd.DataFrame) -> None:
    """In the group of the runs where they have one experiment in common; offline unless WANDB_MODE says otherwise.

    The workspace and the report exist on W&B's server alone, so they are made only if WANDB_MODE is online.
    """
    mode = wandb_mode()
    experiments = {variant.name[0] for variant in comparison.variants}
    group = experiments.pop() if len(experiments) == 1 else None
    left_out = pd.DataFrame(
        [{"run": out.folder, "reasons": "; ".join(out.reasons)} for out in comparison.excluded],
        columns=["run", "reasons"],
    )
    place = f"compare/{comparison.split}"
    place_of_files = Path("runs", "compared")  # not the working folder, which may be a checkout
    place_of_files.mkdir(parents=True, exist_ok=True)
    settings = {"project": PROJECT, "job_type": "compare", "name": "compare", "dir": place_of_files}
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
        entity = run.entity
    if mode == "online":
        save_views(comparison, entity)
    elif mode == "offline":
        print("W&B is offline: WANDB_MODE=online also makes a workspace and a report of these runs")


def save_views(comparison: Comparison, entity: str) -> None:
    """Sends the workspace and the report, and prints where they are. What W&B refuses is told, and costs nothing else."""
    for name, view in (("workspace", workspace(comparison, entity)), ("report", report(comparison, entity))):
        try:
            view.save()
        except Exception as error:  # of W&B's server: a dozen kinds, and the comparison itself is logged
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"warning: W&B did not take the {name} ({reason}): try again later", file=sys.stderr)
        else:
            print(f"{name}: {view.url}")


def workspace(comparison: Comparison, entity: str):
    """A W&B workspace of the compared runs: a line per variant with the band of its seeds, and quality against cost."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=PROJECT,
        name=title(comparison),
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in panel_groups(comparison).items()
        ],
        settings=ws.WorkspaceSettings(x_axis="trainer/global_step", remove_legends_from_panels=False),
        runset_settings=ws.RunsetSettings(
            filters=compared_runs(comparison),
            groupby=[ws.Metric("JobType")],
            pinned_columns=["run:displayName", f"summary:test/{comparison.metric}"],
        ),
        auto_generate_panels=False,
    )


def report(comparison: Comparison, entity: str):
    """A W&B report: what was compared, the table of variants, and the workspace's panels."""
    import wandb_workspaces.reports.v2 as wr

    from .text import markdown

    runs = wr.Runset(
        entity=entity,
        project=PROJECT,
        name="compared runs",
        filters=compared_runs(comparison),
        groupby=["JobType"],
    )
    blocks: list = [wr.MarkdownBlock(f"{comparison.summary}\n\n{markdown(comparison)}")]
    for name, panels in panel_groups(comparison).items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        entity=entity, project=PROJECT, title=title(comparison), description=comparison.summary, blocks=blocks
    )


def panel_groups(comparison: Comparison) -> dict[str, list]:
    """Panels by heading. Seeds of a variant are one line or bar: their mean, with a band from the lowest to the highest."""
    import wandb_workspaces.reports.v2 as wr

    label = metric_named(comparison.metric).title
    seeds: Any = {"groupby": "JobType", "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    measured = f"{comparison.split}/{comparison.metric}"
    return {
        "Training": [
            wr.LinePlot(title=f"{label}, val", x="trainer/global_step", y=[f"val/{comparison.metric}"], **seeds),
            wr.LinePlot(title="training loss", x="trainer/global_step", y=["train/loss"], **seeds),
        ],
        "Quality": [wr.BarPlot(title=f"{label}, {comparison.split}", metrics=[measured], **seeds)],
        "Quality against cost": [
            wr.ScatterPlot(
                title=f"{label} against {words}",
                x=wr.SummaryMetric(f"results.{cost}"),
                y=wr.SummaryMetric(measured),
                log_x=True,
            )
            for cost, words in COSTS.items()
        ],
    }


def compared_runs(comparison: Comparison) -> str:
    """W&B's filter for the runs of these variants."""
    experiments = sorted({variant.name[0] for variant in comparison.variants})
    variants = sorted({record.results.cell for record in comparison.records})
    return f"Group in {experiments!r} and JobType in {variants!r} and State = 'finished'"


def title(comparison: Comparison) -> str:
    """What the views are called: the experiments."""
    return ", ".join(sorted({variant.name[0] for variant in comparison.variants}))
