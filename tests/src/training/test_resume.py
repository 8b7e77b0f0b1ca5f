"""Nothing is lost: real kills, full disks, dead workers and ranks (the processes are those of tests/support/faults.py)."""

import json
import os
import re
import resource
import shutil
import signal
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import wandb
import yaml

import src.evaluate as evaluate
import src.fit as fit
from datamodules import UserError
from src.runs.folder import Run
from src.runs.wandb_logger import PatientWandbLogger
from src.training.checkpointing import Checkpointing
from tests.support import faults

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    faults.warm_up()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that nothing befell."""
    folder = tmp_path_factory.mktemp("whole")
    status, said = faults.finish(faults.fit(folder))
    assert status == 0, said
    return faults.run_folder(folder)


def checkpoint(folder: Path) -> Path:
    return faults.run_folder(folder) / "checkpoints" / "last.ckpt"


def test_a_run_that_was_killed_ends_as_the_one_that_was_not(whole, tmp_path):
    process = faults.fit(tmp_path, "--resume", "auto")
    assert faults.wait_until(checkpoint(tmp_path).exists, process)
    process.kill()
    process.communicate()
    assert not (faults.run_folder(tmp_path) / "results.json").exists()
    status, said = faults.finish(faults.fit(tmp_path, "--resume", "auto"))
    assert status == 0, said
    assert faults.differences(whole, faults.run_folder(tmp_path)) == []


def terminated_in_the_second_epoch(arguments: list[str]) -> None:
    end = Checkpointing.on_train_batch_end

    def signal_after_25_steps(self, trainer, *others) -> None:
        if trainer.global_step == 25:
            os.kill(os.getpid(), signal.SIGTERM)
        end(self, trainer, *others)

    Checkpointing.on_train_batch_end = signal_after_25_steps
    fit.main(arguments)


def test_sigterm_saves_amid_an_epoch_and_a_truncated_checkpoint_is_passed_over(whole, tmp_path):
    options = faults.options_of(tmp_path, ("--resume", "auto"))
    status, said = faults.finish(faults.Forked(terminated_in_the_second_epoch, options))
    assert status == 143, said
    step = int(
        re.search(r"stopped by SIGTERM after step (\d+); the last checkpoint is after step \1: run it again", said)[1]
    )
    assert torch.load(checkpoint(tmp_path), weights_only=True)["global_step"] == step
    resumed = tmp_path / "copy"
    shutil.copytree(tmp_path / "digits", resumed / "digits")
    status, said = faults.finish(faults.fit(resumed, "--resume", "auto"))
    assert status == 0, said
    assert faults.differences(whole, faults.run_folder(resumed)) == []
    content = checkpoint(tmp_path).read_bytes()
    checkpoint(tmp_path).write_bytes(content[: len(content) // 2])
    status, said = faults.finish(faults.fit(tmp_path, "--resume", "auto"))
    assert status == 0, said
    assert "last.ckpt cannot be read" in said
    assert "trying the one before it" in said
    assert faults.differences(whole, faults.run_folder(tmp_path)) == []


def stop_at_a_step_that_is_written(arguments: list[str]) -> None:
    end = Checkpointing.on_train_batch_end

    def told_after_twenty_steps(self, trainer, *others) -> None:
        if trainer.global_step == 20:  # log_every_n_steps is 10
            self.told_to_stop = signal.SIGTERM
        end(self, trainer, *others)

    Checkpointing.on_train_batch_end = told_after_twenty_steps
    fit.main(arguments)


def test_what_a_step_logs_is_not_lost_where_the_run_is_stopped_after_it(whole, tmp_path):
    status, said = faults.finish(
        faults.Forked(stop_at_a_step_that_is_written, faults.options_of(tmp_path, ("--resume", "auto")))
    )
    assert status == 143, said
    status, said = faults.finish(faults.fit(tmp_path, "--resume", "auto"))
    assert status == 0, said
    assert faults.differences(whole, faults.run_folder(tmp_path)) == []


def test_a_run_that_was_killed_in_its_test_is_tested_on_the_same_weights(whole, tmp_path):
    """The averaged ones, which take the place of the last at the end of training."""
    shutil.copytree(whole.parents[1], tmp_path / "digits")
    (faults.run_folder(tmp_path) / "results.json").unlink()
    status, said = faults.finish(faults.fit(tmp_path, "--resume", "auto"))
    assert status == 0, said
    assert faults.differences(whole, faults.run_folder(tmp_path)) == []


def test_a_finished_run_is_left_alone(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.*")}
    assert fit.main(options_of(whole)).read("results.json") == json.loads((whole / "results.json").read_text())
    assert "has finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*.*")}


def test_a_run_goes_on_with_its_own_options_and_data_alone(whole):
    run = Run(whole)
    config, data = yaml.safe_load((whole / "config.yaml").read_text()), run.read("data.json")
    other = json.loads(json.dumps(config))
    other["model"]["init_args"]["dropout"] = 0.2
    with pytest.raises(UserError, match=r"finished with model.init_args.dropout 0.1, this is 0.2: give the options"):
        run.check_options(config, other)
    with pytest.raises(UserError, match="began with other data"):
        run.check_data(data | {"fingerprint": "0"})
    places = {"devices": 8, "strategy": "fsdp", "log_every_n_steps": 1, "enable_progress_bar": False}
    run.check_options(config, config | {"runs_dir": "elsewhere", "trainer": config["trainer"] | places})
    run.check_data(data)
    run.resume("id")
    (whole / "environment.1.json").unlink()


def options_of(whole: Path) -> list[str]:
    runs = whole.parents[2]
    return [*faults.CELL, "--config", str(runs / "ema.yaml"), "--runs_dir", str(runs), "--resume", "auto"]


def test_a_finished_run_refuses_other_options_and_says_which(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.*")}
    others = ["--model.optimizer.lr", "5", "--trainer.max_epochs", "50"]
    with pytest.raises(
        UserError, match=r"finished with model.init_args.optimizer.init_args.lr 0.01, this is 5.0: give"
    ):
        fit.main([*options_of(whole), *others])
    with pytest.raises(UserError, match=r"finished with trainer.max_epochs 3, this is 50"):
        fit.main([*options_of(whole), *others[2:]])
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*.*")}


@pytest.mark.parametrize("name", ["environment.json", "data.json", "config.yaml", "metrics.csv"])
def test_a_file_that_is_missing_is_told_before_anything_is_trained(whole, tmp_path, name):
    shutil.copytree(whole.parents[2], tmp_path / "runs")
    copy = faults.run_folder(tmp_path / "runs")
    (copy / "results.json").unlink()
    (copy / name).unlink()
    before = checkpoint(tmp_path / "runs").stat().st_mtime_ns
    words = (
        r"metrics.csv lacks rows.* after \d+ rows, 0 are there"
        if name == "metrics.csv"
        else f"has no {name}: restore it"
    )
    with pytest.raises(UserError, match=words):
        fit.main(options_of(copy))
    assert checkpoint(tmp_path / "runs").stat().st_mtime_ns == before


def test_a_second_process_on_a_run_ends_with_one_line_and_moves_nothing(tmp_path):
    process = faults.fit(tmp_path, "--trainer.max_epochs", "60")
    try:
        assert faults.wait_until(checkpoint(tmp_path).exists, process), faults.finish(process)
        for options in ([], ["--resume", "auto"]):
            status, said = faults.finish(faults.fit(tmp_path, "--trainer.max_epochs", "60", *options))
            assert status == 2
            assert re.findall("error: .*", said) == re.findall(
                rf"error: \S+seed0 is in use by process {process.pid} on .*: wait for it, or give another --cell", said
            )
            assert [path.name for path in faults.run_folder(tmp_path).parent.glob("seed*")] in (
                ["seed0", "seed0.lock"],
                ["seed0.lock", "seed0"],
            )
        assert process.poll() is None
    finally:
        process.kill()


def test_a_loss_that_is_not_finite_stops_the_run_with_step_samples_and_checkpoint(tmp_path):
    status, said = faults.finish(faults.fit(tmp_path, "--model.optimizer.init_args.lr", "1e30"))
    assert status == 2
    assert re.search(
        r"error: the loss of step \d+ is not finite, on samples digits/\d{4}, .*; last good checkpoint: none", said
    )
    assert not checkpoint(tmp_path).exists()


def test_a_run_that_saves_nothing_is_guarded_all_the_same(tmp_path):
    options = ("--trainer.enable_checkpointing", "false", "--trainer.limit_val_batches", "0")
    status, said = faults.finish(faults.fit(tmp_path, *options, "--model.optimizer.init_args.lr", "1e30"))
    assert status == 2
    assert "is not finite, on samples digits/" in said
    status, said = faults.finish(faults.fit(tmp_path, *options))
    assert status == 0, said
    assert not checkpoint(tmp_path).exists()


def test_averaged_weights_and_sharded_ones_do_not_go_together(tmp_path):
    averaged = [*faults.CELL, "--config", "configs/trainer/fsdp.yaml", "--trainer.callbacks", "EMAWeightAveraging"]
    with pytest.raises(UserError, match=r"do not go with --trainer\.strategy fsdp: use ddp"):
        fit.main([*averaged, "--trainer.accelerator", "cpu", "--runs_dir", str(tmp_path)])


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint_before(tmp_path):
    # the first checkpoint fits, the log of metrics does too; the next checkpoints may not be written
    process = faults.fit(tmp_path, "--trainer.max_epochs", "60")
    assert faults.wait_until(checkpoint(tmp_path).exists, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    status, said = faults.finish(process)
    assert status == 1
    kept = r"after step \d+, the checkpoint after step \d+ is kept, \S+last.ckpt\): free some space, then resume"
    assert re.search(rf"error: cannot write \(File too large, .* MB free; {kept}", said)
    assert torch.load(checkpoint(tmp_path), weights_only=True)["global_step"] > 0
    assert not list(checkpoint(tmp_path).parent.glob("*.part"))


def children(process: faults.Process) -> list[int]:
    """Its children that are Python too: workers, or ranks."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if "python" in Path(f"/proc/{pid}/exe").resolve().name]


def test_a_dead_worker_is_one_line(tmp_path):
    process = faults.fit(tmp_path, "--data.num_workers", "1", "--trainer.max_epochs", "60")
    assert faults.wait_until(checkpoint(tmp_path).exists, process)
    os.kill(children(process)[0], signal.SIGKILL)
    status, said = faults.finish(process)
    assert status == 1
    assert "error: a data loading process died" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("strike", "words"), [(signal.SIGKILL, "reset|closed"), (signal.SIGSTOP, "[Tt]imed out|timeout")]
)
def test_a_dead_or_silent_rank_ends_the_others_with_a_message(tmp_path, monkeypatch, strike, words):
    monkeypatch.setattr("src.training.strategies.TIMEOUT", timedelta(seconds=30))
    first, other = faults.fit_ranks(tmp_path, "--trainer.strategy", "ddp", "--trainer.max_epochs", "60")
    try:
        assert faults.wait_until(checkpoint(tmp_path).exists, first), faults.finish(first)
        other.send_signal(strike)
        status, said = faults.finish(first)
    finally:
        other.kill()  # one that is stopped would never end, nor would pytest
    assert status == 1
    assert re.search(rf"error: another rank died or does not respond \(.*({words})", said)


def test_a_sharded_run_of_two_processes_is_evaluated_by_one(tmp_path):
    process = faults.fit_command(
        tmp_path, "--trainer.strategy", "fsdp", "--trainer.callbacks", "null", "--trainer.max_steps", "6"
    )
    status, said = faults.finish(process)
    assert status == 0, said
    run = faults.run_folder(tmp_path)
    tested = json.loads((run / "results.json").read_text())["metrics"]["test"]
    again = ["--run", str(run), "--trainer.strategy", "auto", "--trainer.devices", "1"]
    assert evaluate.main(again) == pytest.approx(tested, rel=1e-5)


@pytest.mark.parametrize("answers", [False, True], ids=["unreachable", "silent"])
def test_wandb_that_cannot_be_reached_does_not_stop_a_run(tmp_path, monkeypatch, capsys, answers):
    wandb.teardown()  # earlier runs of this process had other settings
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        port = server.getsockname()[1]
        if not answers:
            server.close()
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setattr("src.runs.wandb_logger.WAIT_TO_BEGIN", 3.0)
        logger = PatientWandbLogger(tmp_path, "abcd1234", name="run")
        logger.log_metrics({"loss": 1.0}, step=0)
        logger.experiment.finish()
    assert "warning: W&B cannot be reached" in capsys.readouterr().err
    assert list(tmp_path.glob("wandb/offline-run-*-abcd1234/*.wandb"))
