"""Whether the results of a run are those of its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..metrics.recomputed import recompute, same_value
from ..runs.results import Results


def contradictions(results: Results, predictions: Mapping[str, np.ndarray] | None, sha256: str | None) -> list[str]:
    """What contradicts the metrics of a run; empty where nothing does, or where an old run kept too little.

    Args:
        results: results.json.
        predictions: predictions.npz.
        sha256: of the files of predictions, see `Run.predictions_sha256`.
    """
    tested, found = results.metrics.get("test", {}), []
    try:
        again = recompute(predictions, tested) if predictions is not None else {}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return [f"predictions.npz does not hold predictions ({type(error).__name__}: {error})"]
    for name, value in again.items():
        if not same_value(tested[name], value):
            found.append(f"results.json says {name} {tested[name]:.6g}, predictions.npz gives {value:.6g}")
    if results.seal is not None and results.seal != results.wanted_seal and not found:
        found.append("the metrics in results.json were changed after they were written")
    if results.predictions_sha256 is not None and sha256 is not None and sha256 != results.predictions_sha256:
        found.append("the predictions are not those that results.json was written with")
    return found


def error_line(folders: Mapping[str, str]) -> str:
    """One line for runs that contradict themselves: folder to what contradicts."""
    folder, reason = next(iter(folders.items()))
    more = f" ({len(folders)} runs contradict themselves, see the list)" if len(folders) > 1 else ""
    return f"{Path(folder)}: {reason}: train it again, or leave it out{more}"
