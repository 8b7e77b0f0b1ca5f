"""Running a run again: equal to the last bit, or what differs, from the run folder alone."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from datamodules import UserError
from src import reproduce
from tests.support import DIGITS, ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "6", "--trainer.log_every_n_steps", "1"]
    options += ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--runs_dir", str(runs)]
    # in a process of its own, whose switches of torch no other test has turned
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "src.fit", "--config", DIGITS, *options], cwd=ROOT, env=environment, check=True
    )
    return runs / "digits" / "perceiver" / "seed0"


def copy_of(run: Path, to: Path) -> Path:
    """The folder elsewhere, without its weights."""
    return Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "wandb")))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_run_comes_out_the_same_from_its_folder_alone_in_another_process(run, tmp_path):
    copy = copy_of(run, tmp_path / "sent")
    command = [sys.executable, "-m", "src.reproduce", str(copy), "--runs_dir", str(tmp_path / "again")]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bitwise equal" in done.stdout
    assert "same environment as the original run" in done.stdout
    assert (tmp_path / "again/digits/perceiver/seed0/results.json").is_file()


def test_what_differs_is_told_with_the_first_step_and_the_environment(run, tmp_path, capsys):
    copy = copy_of(run, tmp_path / "sent")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] *= 1.001
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    kept = json.loads((copy / "environment.json").read_text())
    change(copy / "environment.json", packages={**kept["packages"], "torch": "1.0"}, cpu="An abacus")
    with pytest.raises(SystemExit) as left:
        reproduce.main([str(copy), "--runs_dir", str(tmp_path / "again")])
    assert left.value.code == 1
    shown = capsys.readouterr().out
    assert "train/loss over training: differs from step 1 on" in shown  # step 0 is before the first update
    assert "different: test.loss" in shown
    assert "packages.torch" in shown
    assert "An abacus" in shown


def test_threads_are_those_of_the_run_and_then_as_before(run, tmp_path, monkeypatch):
    copy, seen = copy_of(run, tmp_path / "sent"), []
    change(copy / "environment.json", threads=2)
    before, whole = torch.get_num_threads(), reproduce.fit
    monkeypatch.setattr(
        reproduce, "fit", lambda options: seen.append(torch.get_num_threads()) or whole(options=options)
    )
    with suppress(SystemExit):  # the bits may differ with the threads
        reproduce.main([str(copy), "--runs_dir", str(tmp_path / "again")])
    assert (seen, torch.get_num_threads()) == ([2], before)


def test_other_data_and_the_runs_own_folder_and_no_run_are_mistakes(run, tmp_path):
    copy = copy_of(run, tmp_path / "sent")
    change(copy / "data.json", fingerprint="f" * 64)
    with pytest.raises(UserError, match=r"data differ from those.*another fingerprint"):
        reproduce.main([str(copy), "--runs_dir", str(tmp_path / "again")])
    assert not (tmp_path / "again").exists()
    with pytest.raises(UserError, match="contains the run itself"):
        reproduce.main([str(run), "--runs_dir", str(run.parents[2])])
    with pytest.raises(UserError, match=r"no config\.yaml"):
        reproduce.main([str(tmp_path)])
    with pytest.raises(UserError, match="--steps"):
        reproduce.main([str(run), "--steps", "3"])


def test_values_that_one_run_alone_has_differ(run, tmp_path):
    copy = copy_of(run, tmp_path / "sent")
    lines = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    (copy / "metrics.csv").write_text("".join(lines[:5] + lines[6:]))
    found = reproduce.curve_differences(reproduce.Run(run), reproduce.Run(copy))
    assert found == {"train/loss": (4, float("inf"))}
