"""Runs of version 0.1: they load, compare and resume, to the same numbers.

Since the Perceiver reads with exp2 (0.3), a loss may differ in its last digits; no prediction does. A change of the code that
differs by more must raise CODE in src/runs/identity.py.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import src.compare as compare
import src.evaluate as evaluate
import src.fit as fit
from tests.support import ROOT

OPTIONS = [
    "--config",
    str(ROOT / "configs" / "digits_perceiver.yaml"),
    "--experiment",
    "first_house",
    "--cell",
    "stopped",
]
for name, value in (("num_latents", 4), ("latent_dim", 8), ("self_attends_per_block", 1)):
    OPTIONS += [f"--model.backbone.{name}", str(value)]


@pytest.fixture
def runs(tmp_path) -> Iterator[Path]:
    """A copy of the old runs, and as many threads as they had: sums depend on it."""
    shutil.copytree(ROOT / "tests" / "first_house", tmp_path / "first_house")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield tmp_path
    torch.set_num_threads(threads)


def metrics(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())["metrics"]


def same(found: dict, wanted: dict) -> bool:
    """Whether shares and counts are equal, and losses but for rounding."""
    losses = [metrics.pop("loss") for metrics in (found, wanted)]
    return found == wanted and losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_an_old_checkpoint_gives_the_metrics_it_had(runs):
    folder = runs / "first_house" / "finished" / "seed0"
    assert same(evaluate.main(["--run", str(folder)]), metrics(folder)["test"])


def test_an_old_run_that_was_stopped_resumes_to_the_numbers_of_one_that_was_not(runs):
    run = fit.main([*OPTIONS, "--runs_dir", str(runs), "--trainer.max_epochs", "6", "--resume", "auto"])
    assert run.results().steps == 108
    wanted = metrics(runs / "first_house" / "finished" / "seed0")
    assert all(same(metrics(run.folder)[split], wanted[split]) for split in ("val", "test"))
    assert len(compare.main([str(runs)]).records) == 2


def test_an_old_run_does_not_resume_with_other_options(runs):
    with pytest.raises(Exception, match=r"began with trainer\.max_epochs 6, this is 7"):
        fit.main([*OPTIONS, "--runs_dir", str(runs), "--trainer.max_epochs", "7", "--resume", "auto"])
