"""What is checked when a config becomes model, data and trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datamodules import UserError
from datamodules.core.checks import check_counts, check_range

from ..config.error_messages import external_failure, is_user_error, shorten, squeeze


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
    for name in ("max_epochs", "max_steps"):
        if config[name] is not None and config[name] != -1:
            check_range(1, **{f"--trainer.{name}": config[name]})
    check_range(0, **{f"--trainer.{name}": config[name] for name in ("min_epochs", "min_steps", "gradient_clip_val")})
    counts = ("num_nodes", "accumulate_grad_batches", "log_every_n_steps", "check_val_every_n_epoch")
    check_counts(**{f"--trainer.{name}": config[name] for name in counts})
