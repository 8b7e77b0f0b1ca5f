"""Measure a finished run again: `python -m src.evaluate --run runs/quickstart/dialpad_perceiver/seed0`."""

from __future__ import annotations

from pathlib import Path

from datamodules import DataSpec, UserError

from .cli import ByteBenchCLI
from .config.command import Parser, run_command
from .metrics.classification import metrics_of
from .report.table import print_metrics
from .runs.folder import Run

DESCRIPTION = """Measure a run's checkpoint on a split of its data. Other options change the run's own config, such as
--data.batch_size 16 or --data.data_dir elsewhere."""


def main(args: list[str] | None = None) -> dict:
    """Returns the metrics; they are also kept in the run folder as evaluation_<split>_<checkpoint>.json."""
    parser = Parser("python -m src.evaluate", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, help="a run folder")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--checkpoint", default="last", help="last (what results.json was measured on) or best")
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
    same_data = all(trained_on[name] == value for name, value in data.describe().items())
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
        print(f"note: these are other data than {run.folder} was trained on (fingerprint or splits differ)")
    print_metrics(metrics, f"{run.folder}, {options.checkpoint} checkpoint, {options.split} split")
    return metrics


def load_run(run: Run, checkpoint: str, overrides: list[str], description: str) -> ByteBenchCLI:
    """Build a run's model, data and trainer again from its folder; the model gets the weights of a checkpoint.

    overrides: options that change the run's config. Raises UserError where data do not fit the model.
    """
    trained_on = run.read("data.json")
    cli = ByteBenchCLI(["--config", str(run.folder / "config.yaml"), *overrides], description, recording=False)
    check_data_spec(cli.datamodule.spec, trained_on["spec"], run.folder)
    cli.model.load_state_dict(run.weights(checkpoint))
    return cli


def check_data_spec(spec: DataSpec, trained_on: dict, folder: Path) -> None:
    """Raises UserError where data cannot be given to a model that was trained on others."""
    found = spec.to_dict()
    if found["classes"] != trained_on["classes"]:
        raise UserError(
            f"{folder} was trained for {len(trained_on['classes'])} classes ({', '.join(trained_on['classes'][:3])}, ...), "
            f"--data has {len(found['classes'])} ({', '.join(found['classes'][:3])}, ...): evaluate on data with its classes"
        )
    if not spec.has_modalities(trained_on["modalities"]):
        raise UserError(
            f"{folder} was trained on {describe_modalities(trained_on['modalities'])}, --data gives "
            f"{describe_modalities(found['modalities'])}: evaluate with the modalities and shapes of its config.yaml"
        )


def describe_modalities(modalities: dict) -> str:
    return ", ".join(f"{n} {m['elements']}x({m['channels']}+{m['position_channels']})" for n, m in modalities.items())


if __name__ == "__main__":
    run_command(main)
