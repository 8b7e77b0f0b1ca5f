"""Metrics that a trainer logged."""

from __future__ import annotations

import lightning as L

from .registry import is_count


def metrics_of(trainer: L.Trainer, split: str) -> dict[str, float]:
    """The last metrics that a trainer logged for a split, without the split's name; counts are whole numbers."""
    logged = {
        name.removeprefix(f"{split}/"): value.item()
        for name, value in trainer.callback_metrics.items()
        if name.startswith(f"{split}/")
    }
    return {name: int(value) if is_count(name) else value for name, value in logged.items()}
