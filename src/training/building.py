"""What is checked when a config becomes model, data and trainer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datamodules import UserError
from datamodules.core.checks import check_counts, check_range

from ..config.error_messages import external_failure, is_user_error, shorten, squeeze

MOST_DEVICES = 64  # on one machine


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Inside, what the parser or a constructor raises is the config's fault: UserError, with what it said."""
    try:
        yield
    except Exception as error:
        if is_user_error(error) or external_failure(error) is not None:
            raise
        if isinstance(error, UnicodeDecodeError):
            raise UserError("a config is not text in UTF-8: save it as that") from error
        reason = shorten(squeeze(f"{type(error).__name__}: {error}"))
        raise UserError(f"the config cannot be built ({reason}): change these options, or run with --debug") from error


def check_trainer(config: dict[str, Any]) -> None:
    """Raises UserError where options of the trainer are out of range; Lightning checks a part of them."""
    if config["overfit_batches"]:
        raise UserError("--trainer.overfit_batches changes the order of samples: use --trainer.limit_train_batches")
    for unit in ("epochs", "steps"):
        least, most = config[f"min_{unit}"], config[f"max_{unit}"]
        if most is not None and most != -1:
            check_range(1, **{f"--trainer.max_{unit}": most})
            if least is not None and least > most:
                raise UserError(f"--trainer.min_{unit} is {least}, which is more than max_{unit}, {most}: pass fewer")
    for name in ("limit_train_batches", "limit_test_batches"):
        if config[name] == 0:
            raise UserError(f"--trainer.{name} is 0: pass a number of batches, or a share of them such as 0.5")
    check_range(-1, **{"--trainer.num_sanity_val_steps": config["num_sanity_val_steps"]})
    if re.fullmatch(r"-?\d+", devices := str(config["devices"])):
        check_range(-1, MOST_DEVICES, **{"--trainer.devices": int(devices)})  # each is a process
    check_range(0, **{f"--trainer.{name}": config[name] for name in ("min_epochs", "min_steps", "gradient_clip_val")})
    counts = ("num_nodes", "accumulate_grad_batches", "log_every_n_steps", "check_val_every_n_epoch")
    check_counts(**{f"--trainer.{name}": config[name] for name in counts})


def limited_by_flops(max_flops: float, per_example: int, batch: int) -> dict[str, Any]:
    """Options of the trainer for a budget of operations; a backward pass counts as two forward passes.

    Args:
        max_flops: of the whole training.
        per_example: of one forward pass on one example; 0 for what is not trained by steps.
        batch: examples of a step.

    Raises:
        UserError: it is less than one step needs.
    """
    if not per_example:
        return {}
    step = 3 * per_example * batch
    if not step <= max_flops < float("inf"):
        raise UserError(f"--max_flops {max_flops:g} is no budget: a step of this model needs {step:.3g}, give more")
    return {"max_steps": int(max_flops // step), "max_epochs": -1}
