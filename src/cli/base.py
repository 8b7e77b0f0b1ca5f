"""What the commands with a config share: their options, and how a config becomes model, data, trainer and run folder."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import Strategy

from datamodules import ByteArrayDataModule, UserError
from datamodules.core.checks import check_range

from ..config.documents import refuse_pipes
from ..config.names import check_name
from ..config.package import command_name, current_word, with_shipped_configs
from ..config.secrets import redacted
from ..config.trust import check_config, importing_only, trusted_packages
from ..metrics.logged import metrics_of
from ..metrics.registry import main_metric
from ..runs.checkpoints import newest_checkpoint
from ..runs.environment import peak_memory
from ..runs.folder import Run
from ..runs.metrics_log import MetricsLog
from ..runs.results import Results
from ..suites.protocol import entry_of
from ..tasks.base import Task
from ..training.building import check_trainer, limited_by_flops, told_in_one_line
from ..training.checkpointing import Checkpointing
from ..training.energy import Energy
from ..training.progress import RunProgress, Throughput
from ..training.strategies import FullyShard, make_strategy
from .parsing import integers_stay_integers

WANDB_MODES = ("offline", "online", "disabled", "shared")
for library in ("lightning.pytorch", "lightning.fabric"):  # what they tell of devices and seeds is in the run folder
    logging.getLogger(library).setLevel(logging.WARNING)


class ByteBenchCLI(LightningCLI):
    """Parses a config, seeds, and builds `datamodule`, `model`, `trainer` and `run`, the run folder.

    Args:
        args: the command line.
        recording: False builds a trainer that logs and saves nothing, for evaluation.
    """

    def __init__(self, args: Sequence[str], recording: bool = True) -> None:
        self.recording = recording
        self.trusted = trusted_packages(args)
        refuse_pipes([word.rpartition("=")[2] for word in args])
        with importing_only(self.trusted), told_in_one_line():
            super().__init__(
                Task,
                ByteArrayDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                trainer_defaults={
                    "enable_model_summary": False,
                    "use_distributed_sampler": False,
                    "log_every_n_steps": 10,
                },
                parser_kwargs={
                    "allow_abbrev": False,
                    "exit_on_error": False,
                    "prog": command_name("fit"),
                },
                args=[current_word(word) for word in with_shipped_configs(args)],
                run=False,
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", default="default", help="the experiment: a folder of runs, and W&B's group")
        parser.add_argument("--cell", default="run", help="the variant in the experiment: a folder, and W&B's job type")
        parser.add_argument("--runs_dir", default="runs", help="folder of all runs")
        parser.add_argument(
            "--resume",
            type=Literal["auto"],
            help="auto: continue the run of this name where it was stopped, if there is one",
        )
        parser.add_argument("--compile", type=bool, default=False, help="torch.compile the backbone")
        parser.add_argument(
            "--max_flops",
            type=float | None,
            default=None,
            help="train for this many floating-point operations, counted as three times those of a forward pass",
        )
        parser.add_argument(
            "--test", type=bool, default=True, help="measure the test split after training; trials of tuning do not"
        )
        parser.add_argument(
            "--trust",
            type=list[str],
            default=[],
            help="further packages whose classes configs may name",
        )
        parser.add_argument(
            "--suite",
            type=str | None,
            default=None,
            help="the suite file that the run belongs to: its published figures are recorded",
        )
        parser.add_argument("--tags", type=list[str], default=[], help="tags in W&B")
        integers_stay_integers(parser)
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("data.spec", "model.init_args.data_spec", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        check_config(self.config, self.trusted)
        for name in ("experiment", "cell"):
            check_name(f"--{name}", self.config[name])
        check_range(0, 2**32 - 1, **{"--seed_everything": self.config["seed_everything"]})

    def instantiate_classes(self) -> None:
        seed = self.config["seed_everything"]
        self.wandb_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)  # a sweep has named it
        self.run = Run(Path(self.config["runs_dir"], self.config["experiment"], self.config["cell"], f"seed{seed}"))
        self.suite = entry_of(self.config, freezing=False) if self.recording else None
        super().instantiate_classes()
        if self.config["compile"]:
            self.model.backbone.compile()

    def instantiate_trainer(self, **kwargs) -> L.Trainer:
        """The trainer of the config, with what every run needs: records, checkpoints, progress, W&B."""
        config: dict[str, Any] = dict(self.config_init["trainer"])
        callbacks, loggers = as_list(config.pop("callbacks")), as_list(config.pop("logger"))
        config["strategy"] = make_strategy(config["strategy"])
        if self.config["max_flops"] is not None and self.recording:
            batch = self.datamodule.batch_size * (config["accumulate_grad_batches"] or 1)
            config |= limited_by_flops(self.config["max_flops"], self.model.flops_per_example, batch)
        check_trainer(config)
        if config["enable_progress_bar"] is not False:
            callbacks.append(RunProgress())
        if not self.recording:
            # a stranger's config may name folders to write to
            config.update(enable_checkpointing=False, logger=False, profiler=None, default_root_dir=None)
            config["callbacks"] = callbacks
            return L.Trainer(**config)
        self.throughput, self.energy = Throughput(), Energy()
        callbacks += [self.throughput, self.energy]
        saving = config.pop("enable_checkpointing") is not False  # Lightning's own would save beside ours
        self.log = MetricsLog(self.run.folder)
        self.checkpointing = Checkpointing(self.run.folder / "checkpoints", self.model.monitor, self.log, saving)
        callbacks.append(self.checkpointing)
        check_averaging(config["strategy"], callbacks)
        config.update(default_root_dir=str(self.run.folder), logger=[*loggers, *self.loggers()], callbacks=callbacks)
        return L.Trainer(**config, **kwargs)

    def loggers(self) -> list:
        """metrics.csv, and W&B."""
        cell, seed = self.config["cell"], self.config["seed_everything"]
        # a run that resumes continues its W&B run
        if self.config["resume"] and (self.run.folder / "environment.json").is_file() and not self.run.finished:
            self.wandb_id = self.run.read("environment.json")["wandb_id"]
        if not wandb_wanted():
            return [self.log]
        from ..runs.wandb_logger import PatientWandbLogger  # imports wandb: seconds

        return [
            self.log,
            PatientWandbLogger(
                self.run.folder,
                self.wandb_id,
                name=f"{cell}-seed{seed}",
                group=self.config["experiment"],
                job_type=cell,
                tags=redacted(self.config["tags"]),
                config=self.chosen_config(),
            ),
        ]

    def finish_wandb(self) -> None:
        """End the W&B run, if there is one."""
        if wandb_wanted():
            from ..runs.wandb_logger import finish_wandb

            finish_wandb(self.run)

    def check_finished(self) -> None:
        """Raises UserError where a finished run is not what the present options, data and code would give."""
        self.run.check_begun()
        self.run.check_options(self.config_of_run(), self.full_config())
        self.run.check_data(self.described_data())

    def open_run(self) -> Path | None:
        """Begin the run folder, or resume it with --resume auto; returns the checkpoint to resume from, if there is one."""
        config, data = self.full_config(), self.described_data()
        found = newest_checkpoint(self.run.folder / "checkpoints") if self.config["resume"] else None
        if found is None:
            self.suite = entry_of(self.config, freezing=True)
            self.run.begin(config, data, self.wandb_id, self.suite and self.suite.frozen)
            return None
        path, checkpoint = found
        self.run.check_begun()
        self.run.check_options(self.config_of_run(), config)
        self.run.check_data(data)
        state = checkpoint["callbacks"].get(self.checkpointing.state_key, {})
        self.log.resume(checkpoint["global_step"], state.get("log"))
        self.run.resume(self.wandb_id)
        return path

    def described_data(self) -> dict:
        """What data.json holds."""
        return {**self.datamodule.describe(), "spec": self.datamodule.spec.to_dict()}

    def parse_run(self, run: Run) -> dict:
        """A run's config.yaml, which a stranger may have written, as today's parser completes it."""
        with importing_only(self.trusted):
            parsed = self.parser.parse_object(run.config())
        check_config(parsed, self.trusted)
        return self.plain(parsed)

    def config_of_run(self) -> dict:
        """The config that the run began with, as today's parser completes it."""
        began = self.parse_run(self.run)
        began["model"]["init_args"]["data_spec"] = self.datamodule.spec.to_dict()  # data.json has what it was
        return began

    def results(self) -> Results:
        """What the run measured, after training and testing."""
        model, trainer = self.model, self.trainer
        validated = metrics_of(trainer, "val") or self.checkpointing.validated  # restored, where only the test was left
        metrics = {"val": validated, "test": metrics_of(trainer, "test")}
        return Results(
            experiment=self.config["experiment"],
            cell=self.config["cell"],
            seed=self.config["seed_everything"],
            metrics=metrics,
            main_metric=main_metric(metrics["test"] or metrics["val"]),
            metric_definition=model.test_metrics.definition,
            parameters=model.num_parameters,
            flops_per_example=model.flops_per_example,
            train_samples_per_second=self.throughput.samples_per_second,
            epochs=trainer.current_epoch,
            steps=trainer.global_step,
            peak_memory=peak_memory(),
            wall_time_seconds=self.throughput.wall_time,
            bad_samples=len(self.datamodule.gather_bad_samples()),
            damaged_samples=len(self.datamodule.damaged_samples),
            energy_joules=self.energy.total,
            energy_of=sorted(self.energy.joules),
            suite=self.suite,
            identity=self.run.identity(),
            predictions_sha256=self.run.predictions_sha256(),
        ).sealed()

    def full_config(self) -> dict:
        """The whole configuration as plain values, linked ones included; it can be given to --config again."""
        config = self.plain(self.config)
        config["model"]["init_args"]["data_spec"] = self.datamodule.spec.to_dict()
        return config

    def chosen_config(self) -> dict:
        """The options that differ from their defaults, and what names the run: what a dashboard groups and filters by."""
        chosen = yaml.safe_load(self.parser.dump(self.config, skip_default=True))
        named = {name: self.config[name] for name in ("experiment", "cell", "seed_everything")}
        return redacted({**chosen, **named})

    def plain(self, parsed: Any) -> dict:
        """Parsed options as plain values, without secrets and what concerns this command and not the run."""
        config = yaml.safe_load(self.parser.dump(parsed, skip_link_targets=False, skip_none=False))
        usual = {"max_flops": None, "test": True}  # left out, as older runs do not have them
        left_out = {"resume", "trust", *(name for name, value in usual.items() if config[name] == value)}
        return redacted({name: value for name, value in config.items() if name not in left_out})


class ConfigCLI(ByteBenchCLI):
    """Parses a config, and builds nothing."""

    def instantiate_classes(self) -> None:
        pass


def check_options(run: Run, options: Sequence[str]) -> None:
    """Raises UserError where a finished run was trained with other options than these, apart from places.

    Args:
        run: the run.
        options: the words after `python -m src.fit`.
    """
    cli = ConfigCLI(options)
    run.check_options(cli.parse_run(run), cli.plain(cli.config))


def check_averaging(strategy: Strategy | str, callbacks: list) -> None:
    """Raises UserError where averaged weights, which every rank keeps whole, meet sharded ones."""
    if isinstance(strategy, FullyShard) and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise UserError(
            "averaged weights (EMAWeightAveraging) do not go with --trainer.strategy fsdp: use ddp, or leave "
            "them out with --trainer.callbacks null"
        )


def wandb_wanted() -> bool:
    """Whether runs are logged to W&B: where it is installed, but with WANDB_MODE=disabled."""
    mode = os.environ.get("WANDB_MODE", "offline")
    if mode not in WANDB_MODES:
        raise UserError(f"WANDB_MODE is {mode!r}: set it to one of {', '.join(WANDB_MODES)}")
    return find_spec("wandb") is not None and mode != "disabled"


def as_list(value: object) -> list:
    """Lightning takes one callback or logger, several, or none; true and false are about its own logger."""
    return (
        [] if value is None or isinstance(value, bool) else list(value) if isinstance(value, list | tuple) else [value]
    )
