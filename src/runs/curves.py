"""metrics.csv: the losses and metrics of a run over training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from datamodules import UserError
from datamodules.core.checks import check_is_file


def read_curves(path: Path) -> pd.DataFrame:
    """A metrics.csv: numbers alone, with a column `step`.

    Raises:
        FileNotFoundError, pandas.errors.EmptyDataError: there is none.
        UserError: it is anything else.
    """
    try:
        check_is_file(path)
        found = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not CSV that can be read ({reason}): mend it, or leave the run out") from error
    words = [name for name in found if found[name].dtype.kind not in "iufb"]
    if words or "step" not in found:
        wrong = f"its column {words[0]!r} has other than numbers" if words else "it has no column 'step'"
        raise UserError(f"{path}: {wrong}: mend it, or leave the run out")
    return found
