"""Ctrl-C, a terminal that closes and SIGTERM save; a second Ctrl-C ends at once. The signals go to whole process groups."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import src.fit as fit
from src.training.checkpointing import Checkpointing
from tests.support import DIGITS, ROOT, faults

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    faults.warm_up()


def checkpoint(folder: Path) -> Path:
    return faults.run_folder(folder) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_tells_how_to_go_on(tmp_path, number, status):
    workers = "0" if number == signal.SIGTERM else "1"  # torch ends workers on SIGTERM
    process = faults.fit(tmp_path, "--trainer.max_epochs", "60", "--data.num_workers", workers)
    assert faults.wait_until(checkpoint(tmp_path).exists, process)
    os.killpg(process.pid, number)
    found, said = faults.finish(process)
    assert (found, "Traceback" in said) == (status, False)
    name = signal.Signals(number).name
    step = re.search(rf"stopped by {name} after step (\d+); the last checkpoint is after step \1: run it again", said)
    assert step, said
    assert torch.load(checkpoint(tmp_path), weights_only=True)["global_step"] == int(step[1])
    assert not faults.run_folder(tmp_path).with_name("seed0.lock").exists()


def save_for_ever(arguments: list[str]) -> None:
    def save(self, *others, **options) -> None:
        Path(os.environ["SAVING"]).touch()
        time.sleep(faults.LONGEST)

    Checkpointing.save = save
    fit.main(arguments)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    saving = tmp_path / "saving"
    process = faults.Forked(save_for_ever, faults.options_of(tmp_path, ()), SAVING=str(saving))
    assert faults.wait_until(saving.exists, process)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    while process.poll() is None:  # the first may have been taken for the second
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130


def test_a_suite_passes_ctrl_c_on_and_goes_on_where_it_was(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "digits_perceiver.yaml").write_text(Path(DIGITS).read_text())
    variants = [{"name": name, "config": "digits_perceiver"} for name in ("first", "second")]
    path = tmp_path / "suites" / "tiny.yaml"

    def start(epochs: int) -> subprocess.Popen:
        path.write_text(yaml.safe_dump({"source": "none", "budget": {"max_epochs": epochs}, "variants": variants}))
        command = [sys.executable, "-m", "src.suite", str(path), "--runs_dir", str(tmp_path / "runs")]
        environment = faults.environment() | {"WANDB_MODE": "disabled"}
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True, start_new_session=True
        )

    process = start(200)
    last = tmp_path / "runs" / "tiny" / "first" / "seed0" / "checkpoints" / "last.ckpt"
    assert faults.wait_until(last.exists, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=faults.LONGEST)
    assert process.returncode == 130, said
    step = re.search(r"stopped by SIGINT after step (\d+); the last checkpoint is after step \1", said)
    assert step, said
    assert "stopped by SIGINT, 2 of 2 runs are not finished: run the same command again to continue" in said
    assert torch.load(last, weights_only=True)["global_step"] == int(step[1])
    assert not list((tmp_path / "runs").rglob("*.lock"))
    assert not (tmp_path / "runs" / "tiny" / "second").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_prepare_ends_in_one_line(tmp_path, number, status):
    words = ["dialpad", "--out", str(tmp_path), "--clips", "2000", "4", "4", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "datamodules.prepare", *words], cwd=ROOT, stderr=-1, text=True, start_new_session=True
    )
    assert faults.wait_until(lambda: any(tmp_path.glob("*.part")), process)
    os.killpg(process.pid, number)  # as a terminal does, its workers too
    _, said = process.communicate(timeout=faults.LONGEST)
    assert process.returncode == status, said
    lines = [line for line in said.splitlines() if "writing dialpad" not in line and line.strip()]
    assert lines == [f"stopped by {signal.Signals(number).name}"]


@pytest.mark.parametrize("command", ["compare", "reproduce", "visualize"])
def test_ctrl_c_while_a_command_imports_ends_in_one_line(command, tmp_path):
    words = [sys.executable, "-m", f"src.{command}", str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=-1, stderr=-1, text=True, start_new_session=True)
    maps = Path(f"/proc/{process.pid}/maps")
    assert faults.wait_until(lambda: "numpy" in maps.read_text(), process)  # of libraries the first
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=faults.LONGEST)
    assert (process.returncode, said) == (130, "stopped by SIGINT\n")
