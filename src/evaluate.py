"""Measure a finished run again: `python -m src.evaluate --run runs/quickstart/dialpad_perceiver/seed0`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from . import api
from .config.command import Parser, run_command
from .config.package import command_name
from .report.table import print_metrics
from .runs.folder import Run

DESCRIPTION = """Measure a checkpoint of a finished run on a split of its data. Further options change the run's config, such
as --data.batch_size 16 or --data.data_dir elsewhere."""

STRESSED = 256  # samples that --stress measures: two minutes for the quickstart


def main(args: list[str] | None = None) -> dict[str, float]:
    """Returns the metrics, and writes them to evaluation_<split>_<checkpoint>.json in the run folder."""
    parser = Parser(command_name("evaluate"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, help="a run folder")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="split to measure on (default: test)"
    )
    parser.add_argument("--checkpoint", default="last", help="last (default), as results.json, or best")
    parser.add_argument(
        "--stress",
        action="store_true",
        help="measure with damaged and missing inputs, and calibration: a table, stress_<checkpoint>.json and a figure",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help=f"with --stress: on N test samples, spread evenly; 0 for all (default: {STRESSED})",
    )
    options, overrides = parser.parse_known_args(args)
    if options.samples is not None and (options.samples < 0 or not options.stress):
        parser.error(f"--samples is {options.samples}: give it with --stress, 0 or more")
    if options.stress:
        if options.split != "test":
            parser.error(f"--stress measures the test split, not {options.split}: leave --split out")
        return stress(options, overrides)
    metrics = api.evaluate(Run(options.run), split=options.split, checkpoint=options.checkpoint, options=overrides)
    print_metrics(metrics, f"{options.run}, {options.checkpoint} checkpoint, {options.split} split")
    return metrics


def stress(options: Namespace, overrides: list[str]) -> dict[str, float]:
    """The stress of a run; returns its metrics on clean inputs."""
    from .stress.summary import print_stress  # imports matplotlib: a second

    samples = STRESSED if options.samples is None else options.samples
    record = api.stress(options.run, checkpoint=options.checkpoint, samples=samples, options=overrides)
    print_stress(record)
    for name in (f"stress_{options.checkpoint}.json", f"pictures/stress_{options.checkpoint}.png"):
        print(f"written: {options.run / name}")
    return record["clean"]


if __name__ == "__main__":
    run_command(main)
