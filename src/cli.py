"""What the commands share: the options, how a config becomes model, data and trainer, and how a user's mistake ends."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from datamodules import ByteArrayDataModule
from src.callbacks import RunProgress, Throughput, checkpoints
from src.mistakes import is_mistake, one_line
from src.runs import Run

# DataSpec is handed over whole, from the datamodule; its fields are no options
set_parsing_settings(subclasses_enabled=["is_pure_dataclass"])


class ByteBenchCLI(LightningCLI):
    """Parses a config, seeds, and builds `datamodule`, `model` and `trainer`; `run` is where the run will be kept.

    recording: False builds a trainer that logs and saves nothing, for evaluation.
    """

    def __init__(self, args: Sequence[str], description: str, recording: bool = True) -> None:
        self.recording = recording
        super().__init__(
            L.LightningModule,
            ByteArrayDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"enable_model_summary": False, "use_distributed_sampler": False, "log_every_n_steps": 10},
            parser_kwargs={
                "allow_abbrev": False,
                "exit_on_error": False,
                "description": description,
                "prog": f"python -m {Path(sys.argv[0]).parent.name}.{Path(sys.argv[0]).stem}",
            },
            args=list(args),
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--experiment", default="default", help="runs of one question: a folder, and W&B's group")
        parser.add_argument("--cell", default="run", help="what is compared in it: a folder, and W&B's job type")
        parser.add_argument("--runs_dir", default="runs", help="where run folders lie")
        parser.add_argument("--tags", type=list[str], default=[], help="W&B's tags")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("data.spec", "model.init_args.data_spec", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        seed = self.config["seed_everything"]
        self.run = Run(Path(self.config["runs_dir"], self.config["experiment"], self.config["cell"], f"seed{seed}"))
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs) -> L.Trainer:
        """The trainer of the config, with what every run needs: records, checkpoints, progress, W&B."""
        config: dict[str, Any] = dict(self.config_init["trainer"])
        callbacks, loggers = as_list(config.pop("callbacks")), as_list(config.pop("logger"))
        callbacks.append(RunProgress())
        if not self.recording:
            config.update(enable_checkpointing=False, logger=False, callbacks=callbacks)
            return L.Trainer(**config)
        self.throughput = Throughput()
        callbacks.append(self.throughput)
        if config["enable_checkpointing"] is not False:
            callbacks += checkpoints(self.run.folder, self.model.monitor)
        config.update(default_root_dir=str(self.run.folder), logger=[*loggers, *self.loggers()], callbacks=callbacks)
        return L.Trainer(**config, **kwargs)

    def loggers(self) -> list:
        """metrics.csv, and W&B: offline unless WANDB_MODE=online, nothing with WANDB_MODE=disabled."""
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        cell, seed = self.config["cell"], self.config["seed_everything"]
        wandb = WandbLogger(
            name=f"{cell}-seed{seed}",
            save_dir=str(self.run.folder),
            project="bytebench",
            group=self.config["experiment"],
            job_type=cell,
            tags=self.config["tags"],
            config=self.full_config(),
        )
        wandb._wandb_init.pop("anonymous", None)  # Lightning passes it always, W&B warns of it always
        return [CSVLogger(str(self.run.folder), name="", version=""), wandb]

    def full_config(self) -> dict:
        """The whole configuration as plain values, linked ones included; it can be given to --config again."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_link_targets=False, skip_none=False))
        config["model"]["init_args"]["data_spec"] = self.datamodule.spec.to_dict()
        return config


def as_list(value: object) -> list:
    """Lightning takes one callback or logger, several, or none."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def run_command(main: Callable[[list[str]], object]) -> None:
    """Run a command's `main` on the command line. A user's mistake becomes one line and exit code 2; `--debug` shows
    where it came from."""
    args = sys.argv[1:]
    debug = "--debug" in args
    quiet_libraries()
    try:
        main([arg for arg in args if arg != "--debug"])
    except Exception as error:
        if debug or not is_mistake(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def quiet_libraries() -> None:
    """Hide what libraries say about themselves; warnings that concern the user's run stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    ignore = partial(warnings.filterwarnings, "ignore")
    ignore(message=".*does not have many workers.*")
    ignore(message=".*exists and is not empty.*")
    ignore(message=".*number of training batches.*is smaller than the logging interval.*")
    ignore(message=".*is deprecated.*", module="torch.*")
    ignore(message=".*LeafSpec.*")
    ignore(message=".*args parameter is intended to run from within Python.*")
