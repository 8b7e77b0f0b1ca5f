"""Measure a finished run again: `python -m src.evaluate --run runs/quickstart/dialpad_perceiver/seed0`."""

from __future__ import annotations

from pathlib import Path

from datamodules import DataSpec, UserError

from .cli import ByteBenchCLI
from .config.command import Parser, run_command
from .metrics.logged import metrics_of
from .report.table import print_metrics
from .runs.folder import Run

DESCRIPTION = """Measure a checkpoint of a finished run on a split of its data. Further options change the run's config, such
as --data.batch_size 16 or --data.data_dir elsewhere."""


def main(args: list[str] | None = None) -> dict:
    """Returns the metrics, and writes them to evaluation_<split>_<checkpoint>.json in the run folder."""
    parser = Parser("python -m src.evaluate", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, help="a run folder")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="split to measure on (default: test)"
    )
    parser.add_argument("--checkpoint", default="last", help="last (default), as results.json, or best")
    options, overrides = parser.parse_known_args(args)

    run = Run(options.run)
    trained_on = run.read("data.json")
    cli = load_run(run, options.checkpoint, overrides, DESCRIPTION)
    data = cli.datamodule
    data.test_split = options.split
    cli.trainer.test(cli.model, data, verbose=False)

    metrics = metrics_of(cli.trainer, "test")
    kept = f"evaluation_{options.split}_{options.checkpoint}"
    if cli.model.predictions is not None:
        run.write_predictions(f"{kept}_predictions", cli.model.predictions)
    described = data.describe()
    same_data = all(trained_on[name] == value for name, value in described.items())
    run.write(
        f"{kept}.json",
        {
            "split": options.split,
            "checkpoint": options.checkpoint,
            "same_data_as_training": same_data,
            "metrics": metrics,
        },
    )
    if not same_data:
        print(f"note: these are not the data that {run.folder} was trained on (fingerprint or splits differ)")
    print_metrics(metrics, f"{run.folder}, {options.checkpoint} checkpoint, {options.split} split")
    return metrics


def load_run(run: Run, checkpoint: str, overrides: list[str], description: str) -> ByteBenchCLI:
    """Build the model, data and trainer of a run from its folder; the model gets the weights of a checkpoint.

    Args:
        run: a run folder.
        checkpoint: last or best.
        overrides: options that change the run's config.
        description: of the command, for its help.

    Raises:
        UserError: the data do not fit the model.
    """
    trained_on = run.read("data.json")
    cli = ByteBenchCLI(["--config", str(run.folder / "config.yaml"), *overrides], description, recording=False)
    check_data_spec(cli.datamodule.spec, trained_on["spec"], run.folder)
    cli.model.load_state_dict(run.weights(checkpoint))
    return cli


def check_data_spec(spec: DataSpec, trained_on: dict, folder: Path) -> None:
    """Raises UserError where a model cannot take the data, since it was trained on others."""
    found = spec.to_dict()
    wanted, classes = trained_on["classes"], found["classes"]
    if wanted != classes:
        raise UserError(
            f"{folder} was trained for {len(wanted)} classes ({', '.join(wanted[:3])}, ...), --data has {len(classes)} "
            f"({', '.join(classes[:3])}, ...): evaluate on data with its classes"
        )
    modalities = trained_on["modalities"]
    if not spec.has_modalities(modalities):
        raise UserError(
            f"{folder} was trained on {describe_modalities(modalities)}, --data gives "
            f"{describe_modalities(found['modalities'])}: evaluate with the modalities and shapes of its config.yaml"
        )


def describe_modalities(modalities: dict) -> str:
    return ", ".join(f"{n} {m['elements']}x({m['channels']}+{m['position_channels']})" for n, m in modalities.items())


if __name__ == "__main__":
    run_command(main)
