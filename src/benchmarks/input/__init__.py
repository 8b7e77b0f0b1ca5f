"""Data loading: against the library calls that bound it, and beside the loaders that people use."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module


def run(rounds: int = 5, parts: Sequence[str] = ("limits", "peers")) -> None:
    """Writes results/input_HARDWARE.csv and results/input_peers_HARDWARE.csv: medians over `rounds`."""
    for part in parts:
        import_module(f".{part}", __name__).run(rounds)
