"""Train one cell of a benchmark and test it: `python -m src.fit --config configs/quickstart.yaml`."""

from __future__ import annotations

import wandb

from .cli import ByteBenchCLI
from .config.command import run_command
from .metrics.classification import metrics_of
from .report.table import print_runs
from .runs.environment import peak_memory
from .runs.wandb_logger import log_record
from .suites.definition import expand_variant

DESCRIPTION = """Train the model of a config on its data, test it, and keep everything in a run folder. Any value of the
config can be changed on the command line: --trainer.max_epochs 3 --data.batch_size 32 --seed_everything 1. --variant
SUITE/NAME stands for the options of a suite's variant, such as perceiver_ablations/cross8_start."""


def main(args: list[str] | None = None) -> dict:
    """Train and test; returns what results.json holds."""
    cli = ByteBenchCLI(expand_variant(args or []), DESCRIPTION)
    model, data, trainer, run = cli.model, cli.datamodule, cli.trainer, cli.run
    data.prepare_data()
    model.setup("fit")
    if cli.config["resume"] and run.finished:
        print(f"{run.folder} has finished")
        print_runs([run])
        return run.read("results.json")
    checkpoint = run.newest_checkpoint() if cli.config["resume"] else None
    # data, and weights to probe, that are missing end the command here, before an older run is moved
    record = (cli.full_config(), {**data.describe(), "spec": data.spec.to_dict()}, cli.wandb_id)
    if checkpoint is None:
        run.begin(*record)
    else:
        run.go_on(*record)
        cli.restore_metrics(checkpoint)
    parameters = sum(p.numel() for p in model.parameters())
    flops = model.count_flops()
    if trainer.is_global_zero:
        backbone = type(model.backbone).__name__
        print(f"{backbone} on {type(data).__name__}: {parameters:,} parameters, {flops / 1e6:,.1f} MFLOPs an example")

    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    if not cli.recovery.trained:  # it was done before; Lightning then leaves out the end of training, too
        for callback in cli.averaging:
            callback.on_train_end(trainer, model)
    validated = metrics_of(trainer, "val") or cli.recovery.validated  # of before, where only the test was left
    trainer.test(model, data, verbose=False)

    results = {
        "experiment": cli.config["experiment"],
        "cell": cli.config["cell"],
        "seed": cli.config["seed_everything"],
        "metrics": {"val": validated, "test": metrics_of(trainer, "test")},
        "metric_definition": model.test_metrics.definition,
        "parameters": parameters,
        "flops_per_example": flops,
        "train_samples_per_second": cli.throughput.samples_per_second,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "bad_samples": len(data.bad_samples),
        "peak_memory": peak_memory(),
        "wall_time_seconds": cli.throughput.wall_time,
        "energy_joules": cli.energy.total,
        "energy_of": sorted(cli.energy.joules),
    }
    if model.predictions is not None:
        run.write_predictions("predictions", model.predictions)
    run.write("results.json", results)
    log_record(run)
    if wandb.run is not None:
        wandb.finish()
    if trainer.is_global_zero:
        print_runs([run])
    return results


if __name__ == "__main__":
    run_command(main)
