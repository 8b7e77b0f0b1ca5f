"""The commands as functions: `from bytebench import fit, evaluate, compare`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datamodules import UserError

from .config.error_messages import shorten, squeeze
from .config.names import check_name
from .runs.folder import Run, find_runs, find_unfinished

if TYPE_CHECKING:
    from datamodules import ByteArrayDataModule, DataSpec

    from .cli import ByteBenchCLI
    from .report.comparison import Comparison

# Options by name, such as {"trainer.max_epochs": 3}, or the words of a command line
Options = Mapping[str, Any] | Sequence[str]


def fit(
    config: str | Path | None = None,
    *,
    variant: str | None = None,
    resume: bool = False,
    options: Options = (),
) -> Run:
    """Trains the model of a config on its data, tests it, and keeps everything in a run folder.

    Args:
        config: a YAML file, or the name of one that ships with the package, such as "digits_perceiver".
        variant: SUITE/NAME, the variant of a suite, instead of a config.
        resume: continues the run of this name where it was stopped, if there is one.
        options: changes of the config, such as {"trainer.max_epochs": 3, "data.batch_size": 32}.

    Returns:
        The finished run: `run.folder`, `run.results().metrics`.

    Raises:
        UserError: the config, an option or a file cannot be used as it is.
    """
    from .config.option_names import check_option_names
    from .suites.definition import expand_variant

    words = ["--config", str(config)] if config is not None else []
    words += ["--variant", variant] if variant is not None else []
    words += ["--resume", "auto"] if resume else []
    words = expand_variant([*words, *words_of(options)])
    check_option_names(words)
    from .cli import ByteBenchCLI  # imports torch and Lightning: seconds

    cli = ByteBenchCLI(words)
    model, data, trainer, run = cli.model, cli.datamodule, cli.trainer, cli.run
    data.prepare_data()
    model.setup("fit")  # data, and weights to probe, that are missing end the command before an older run is moved
    if cli.config["resume"] and run.finished:
        cli.check_finished()
        print(f"{run.folder} has finished")
        return run
    with run.owned():
        checkpoint = cli.open_run()
        size = f"{model.num_parameters:,} parameters, {model.flops_per_example / 1e6:,.1f} MFLOPs an example"
        if trainer.is_global_zero:
            print(f"{type(model.backbone).__name__} on {type(data).__name__}: {size}")
            if model.loaded_weights is not None:
                print(model.loaded_weights)
                run.write("weights.json", model.loaded_weights.to_dict())
        trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
        if cli.config["test"]:
            trainer.test(model, data, verbose=False)
        else:  # a budget of steps may end inside an epoch, before any validation
            trainer.validate(model, data, verbose=False)
        if model.predictions is not None:
            run.write_predictions("predictions", with_clusters(model.predictions, data))
        run.write("results.json", cli.results().to_dict())
        cli.finish_wandb()
    return run


def evaluate(
    run: Run | str | Path,
    *,
    split: Literal["train", "val", "test"] = "test",
    checkpoint: str = "last",
    options: Options = (),
) -> dict[str, float]:
    """Measures a checkpoint of a finished run; writes evaluation_<split>_<checkpoint>.json into its folder.

    Args:
        run: the run, or its folder.
        split: of its data.
        checkpoint: "last", as results.json, or "best".
        options: changes of the run's config, such as {"data.data_dir": "elsewhere"}.

    Returns:
        Metrics by name.

    Raises:
        UserError: the run, the checkpoint or the data cannot be used.
    """
    from .metrics.logged import metrics_of

    check_name("--checkpoint", checkpoint)
    run = run if isinstance(run, Run) else Run(Path(run))
    trained_on = run.read("data.json")
    cli = load_run(run, checkpoint, words_of(options))
    data = cli.datamodule
    if split == "test" and not cli.config["test"]:
        raise UserError(f"{run.folder} is a trial of tuning, which chooses on val: pass --split val")
    data.test_split = split
    cli.trainer.test(cli.model, data, verbose=False)

    metrics = metrics_of(cli.trainer, "test")
    kept = f"evaluation_{split}_{checkpoint}"
    if cli.model.predictions is not None:
        run.write_predictions(f"{kept}_predictions", cli.model.predictions)
    same_data = all(trained_on[name] == value for name, value in data.describe().items())
    record = {"split": split, "checkpoint": checkpoint, "same_data_as_training": same_data, "metrics": metrics}
    run.write(f"{kept}.json", record)
    if not same_data:
        print(f"note: these are not the data that {run.folder} was trained on (fingerprint or splits differ)")
    return metrics


def stress(
    run: Run | str | Path, *, checkpoint: str = "last", samples: int = 0, options: Options = ()
) -> dict[str, Any]:
    """Measures a finished run with damaged and missing inputs, and how much its probabilities are worth.

    Writes stress_<checkpoint>.json and pictures/stress_<checkpoint>.png into its folder.

    Args:
        run: the run, or its folder.
        checkpoint: "last" or "best".
        samples: of the test split, spread evenly, that are measured; 0 for all.
        options: changes of the run's config.

    Returns:
        The record: `clean` metrics, `conditions` with metrics and differences from clean, `calibration`.

    Raises:
        UserError: the run, the checkpoint or the data cannot be used, or the task gives no scores for whole examples.
    """
    from .stress.measure import measure
    from .stress.summary import draw_stress

    check_name("--checkpoint", checkpoint)
    run = run if isinstance(run, Run) else Run(Path(run))
    cli = load_run(run, checkpoint, words_of(options))
    record = {"checkpoint": checkpoint, **measure(cli, samples)}
    run.write(f"stress_{checkpoint}.json", record)
    name = f"{cli.model.title} on {type(cli.datamodule).__name__}"
    draw_stress(record, run.folder / "pictures" / f"stress_{checkpoint}.png", f"{name}: damaged and missing inputs")
    return record


def compare(
    runs: Sequence[Run | str | Path],
    *,
    split: Literal["val", "test"] = "test",
    reference: str | None = None,
    claims: Sequence[str] = (),
    any_budget: bool = False,
) -> Comparison:
    """Compares finished runs: per variant, means with intervals, differences and verdicts, published values and costs.

    Args:
        runs: runs, run folders, or folders of them.
        split: whose metrics are compared.
        reference: the variant that differences are taken from; that of the runs' suite if None, else the first.
        claims: comparisons to judge, such as "a > b on top1", besides those that the runs' suite recorded.
        any_budget: also compares runs with different budgets.

    Returns:
        The comparison: `frame()` has a row per variant, `excluded` the runs left out with the reasons.

    Raises:
        UserError: there is no run, or none that can be compared.
    """
    from .report.comparison import compare_runs
    from .stats.claims import parse_claim

    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    wanted = [parse_claim(text) for text in claims]
    return compare_runs(find_runs(folders), split, reference, any_budget, wanted, find_unfinished(folders))


def with_clusters(predictions: Any, data: ByteArrayDataModule) -> Any:
    """Predictions with the name of every sample's `cluster`, where the data have clusters of several samples."""
    if not isinstance(predictions, dict) or "key" not in predictions:  # of detection
        return predictions
    keys = predictions["key"].tolist()
    clusters = [data.cluster(key) for key in keys]
    return predictions if clusters == keys else {**predictions, "cluster": np.array(clusters, dtype=np.str_)}


def words_of(options: Options) -> list[str]:
    """Options as words of a command line."""
    if not isinstance(options, Mapping):
        return list(options)
    return [
        f"--{name}={value if isinstance(value, str | Path) else json.dumps(value)}" for name, value in options.items()
    ]


def load_run(run: Run, checkpoint: str = "last", overrides: Sequence[str] = ()) -> ByteBenchCLI:
    """Builds the model, data and trainer of a run from its folder; the model gets the weights of a checkpoint.

    Args:
        run: a run folder.
        checkpoint: last or best.
        overrides: options that change the run's config.

    Raises:
        UserError: the data do not fit the model.
    """
    from .cli import ByteBenchCLI

    trained_on = run.read("data.json")
    cli = ByteBenchCLI(["--config", str(run.folder / "config.yaml"), *overrides], recording=False)
    check_data_spec(cli.datamodule.spec, trained_on["spec"], run.folder)
    try:
        cli.model.load_state_dict(run.weights(checkpoint))
    except UserError:
        raise
    except Exception as error:  # of other names, shapes or types: torch has an error for each
        reason = shorten(squeeze(f"{type(error).__name__}: {error}"))
        raise UserError(
            f"{run.folder}: its {checkpoint} checkpoint does not fit the model of its config.yaml ({reason}): name another "
            "--checkpoint, or train the run again"
        ) from error
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
    sizes = {
        name: [m.get(key, "?") for key in ("elements", "channels", "position_channels")]
        for name, m in modalities.items()
    }
    return ", ".join(f"{name} {elements}x({c}+{p})" for name, (elements, c, p) in sizes.items())
