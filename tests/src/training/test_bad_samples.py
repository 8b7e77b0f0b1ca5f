"""results.json counts the distinct samples that could not be decoded, over all ranks, epochs and parts of a run."""

import os
import signal
from pathlib import Path

import pytest

import src.fit as fit
from datamodules import Digits
from datamodules.core.datamodule import TensorSplit
from datamodules.core.errors import BadSampleError
from src.runs.folder import Run
from src.training.checkpointing import Checkpointing
from tests.support import DIGITS, faults

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    faults.warm_up()


QUIET = {"WANDB_MODE": "disabled"}  # a service of W&B that this process has would know the run
OPTIONS = ["--config", DIGITS, "--trainer.max_epochs", "2", "--data.on_bad_sample", "skip", "--data.max_bad_share", "1"]


def fit_on_damaged(arguments: list[str]) -> None:
    """Trains where the samples named in BAD cannot be decoded, and is told to stop after the step STOP."""
    load, end, bad = TensorSplit.load, Checkpointing.on_train_batch_end, os.environ["BAD"].split()

    def damaged(self, index, generator):
        if self.keys[index] in bad:
            raise BadSampleError("is damaged")
        return load(self, index, generator)

    def told(self, trainer, *others):
        if trainer.global_step == int(os.environ["STOP"]):
            self.told_to_stop = signal.SIGTERM
        end(self, trainer, *others)

    TensorSplit.load, Checkpointing.on_train_batch_end = damaged, told
    fit.main(arguments)


@pytest.fixture(scope="module")
def keys() -> list[str]:
    """Of samples that two ranks share: all of training, and one of the test."""
    data = Digits()
    return [*data.split("train").keys[:6], data.split("test").keys[0]]


def options(folder: Path) -> list[str]:
    return [*OPTIONS, "--runs_dir", str(folder), "--resume", "auto"]


def counted(folder: Path) -> int:
    return Run(faults.run_folder(folder)).results().bad_samples


def test_a_sample_counts_once_and_a_run_that_resumes_remembers(tmp_path, keys):
    process = faults.Forked(
        fit_on_damaged, options(tmp_path), BAD=" ".join(keys[:6]), STOP="25", **QUIET
    )  # the second epoch
    assert faults.finish(process)[0] == 143
    process = faults.Forked(fit_on_damaged, options(tmp_path), BAD=keys[6], STOP="0", **QUIET)  # the others were mended
    status, said = faults.finish(process)
    assert status == 0, said
    assert counted(tmp_path) == 7


def test_those_of_all_ranks_count(tmp_path, keys):
    command = [*options(tmp_path), *faults.RANKS]
    processes = faults.ranks(command, fit_on_damaged, BAD=" ".join(keys), STOP="0", **QUIET)
    for process in processes:
        status, said = faults.finish(process)
        assert status == 0, said
    assert counted(tmp_path) == 7
