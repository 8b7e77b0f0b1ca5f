"""Commands import what they use: each starts in a process of its own, which then tells what it has imported."""

import subprocess
import sys

import pytest

from tests.support import DIGITS, ROOT
from tests.support.run_folders import make_run

HEAVY = (
    "lightning",
    "matplotlib",
    "scipy.signal",
    "scipy.stats",
    "sympy",
    "torch",
    "torchmetrics",
    "transformers",
    "wandb",
)
SCRIPT = """
import sys
sys.argv[1:] = {words!r}
try:
    {statement}
finally:
    print(*(name for name in {heavy!r} if sys.modules.get(name)), sep="\\n", file=open({told!r}, "w"))
"""
COMMAND = "from src.__main__ import main; main()"


def imported(tmp_path, statement: str, *words: str) -> set[str]:
    """Which of the heavy packages a statement imports."""
    told = tmp_path / "imported"
    script = SCRIPT.format(statement=statement, words=list(words), heavy=HEAVY, told=str(told))
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, timeout=600)
    return set(told.read_text().split())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["compare", "--help"],
        ["submit", "--help"],
        ["fit", "--help"],
        ["suite", "--help"],
        ["tune", "--help"],
    ],
)
def test_help_needs_no_torch(words, tmp_path):
    assert imported(tmp_path, COMMAND, *words) == set()


def test_runs_are_compared_without_torch(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "a", seed)
    assert imported(tmp_path, COMMAND, "compare", str(tmp_path)) == set()


@pytest.mark.parametrize("option", ["--trainer.max_epoch", "--data.batchsize", "--model.backbone.num_latent"])
def test_a_misspelt_option_is_told_without_torch(option, tmp_path):
    assert imported(tmp_path, COMMAND, "fit", "--config", DIGITS, option, "3") == set()


def test_a_command_leaves_out_what_only_other_libraries_use(tmp_path):
    found = imported(tmp_path, COMMAND, "fit", "--config", DIGITS, "--trainer.max_epochs", "three")
    assert found <= {"lightning", "torch", "torchmetrics", "sympy"}


def test_datamodules_need_lightning_and_torch_only_once_they_are_used(tmp_path):
    assert imported(tmp_path, "import datamodules") == set()
    assert imported(tmp_path, "from datamodules import ByteArray") == {"torch"}


def test_a_layer_needs_torch_alone(tmp_path):
    assert imported(tmp_path, "from src.backbones import LambdaLayer, Perceiver") == {"torch"}
