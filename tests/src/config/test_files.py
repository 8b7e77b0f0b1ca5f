"""Pipes, devices and folders in the place of a file are told in one line; opening a pipe would wait for ever."""

import os
import shutil
import signal
from pathlib import Path

import pytest

import src.compare as compare
import src.evaluate as evaluate
import src.fit as fit
import src.reproduce as reproduce
import src.suite as suite
import src.visualize as visualize
from datamodules import prepare
from datamodules.core.checks import read_bytes
from src.config.error_messages import is_user_error, one_line
from tests.support import DIGITS
from tests.support.run_folders import make_run

SOME = ["--config", DIGITS, "--trainer.max_steps=1", "--model.backbone.num_latents=2", "--model.backbone.latent_dim=8"]
SOME += ["--model.backbone.self_heads=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
KINDS = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}
IN_TIME = 60  # seconds


@pytest.fixture(autouse=True)
def in_time():
    """What waits for a writer is interrupted by an error that no command expects."""

    def hangs(*_) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(IN_TIME)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def said(main, words: list) -> str:
    """The line that a command ends with; empty where it ends well."""
    try:
        main([str(word) for word in words])
    except Exception as error:
        if not is_user_error(error):
            raise
        return one_line(error)
    return ""


def put(kind: str, path: Path) -> Path:
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_given_instead_of_a_config_or_a_suite_it_is_named(kind, tmp_path):
    odd = put(kind, tmp_path / "odd.yaml")
    for words in (
        ["--config", odd],
        [f"--config={odd}"],
        ["--config", DIGITS, "--model", odd],
        [*SOME, "--suite", odd],
    ):
        assert "odd.yaml" in said(fit.main, [*words, "--runs_dir", tmp_path / "runs"])
    assert "odd.yaml" in said(suite.main, [odd, "--list"])
    (tmp_path / "config.yaml").write_text(f"data: {odd}\n")
    assert "odd.yaml" in said(fit.main, [*SOME, "--config", tmp_path / "config.yaml", "--runs_dir", tmp_path / "runs"])
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return fit.main([*SOME, "--runs_dir", str(tmp_path_factory.mktemp("runs"))]).folder


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("name", ["config.yaml", "data.json", "checkpoints/last.ckpt", "checkpoints/last.ckpt.sha256"])
def test_in_a_run_that_is_measured_it_is_named(kind, name, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    put(kind, run / name)
    line = said(evaluate.main, ["--run", run])
    assert Path(name).name in line or (name.endswith("sha256") and not line)
    if not name.endswith("sha256"):
        assert said(visualize.main, [run, "--samples", "1"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["config.yaml", "data.json", "environment.json", "results.json", "metrics.csv", "predictions.npz"]
)
def test_in_a_run_that_is_compared_or_repeated_it_is_named(kind, name, tmp_path):
    run = make_run(tmp_path, "a", 0)
    put(kind, run / name)
    line = said(compare.main, [run, "--html", tmp_path / "page.html"])
    assert name in line or name == "predictions.npz"  # it compares without
    if name in ("config.yaml", "environment.json"):
        assert name in said(reproduce.main, [run, "--runs_dir", tmp_path / "again"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.index.json", "manifest.json"])
def test_in_prepared_data_it_is_named(kind, name, tmp_path, capsys):
    from tests.support.fuzz_data import write

    write(tmp_path)
    put(kind, tmp_path / name)
    for command in ("lint", "stats", "reindex"):
        capsys.readouterr()
        status = prepare.run([command, str(tmp_path)])
        told = "".join(capsys.readouterr())
        assert (status in (1, 2) and name in told) or (command, name) == ("reindex", "train-000000.index.json")


def test_only_plain_files_are_read(tmp_path):
    (tmp_path / "plain").write_bytes(b"bytes")
    assert read_bytes(tmp_path / "plain") == b"bytes"
    (tmp_path / "linked").symlink_to(tmp_path / "plain")
    assert read_bytes(tmp_path / "linked") == b"bytes"
    for kind in KINDS:
        with pytest.raises(OSError, match="folder, a pipe or a device"):
            read_bytes(put(kind, tmp_path / kind))
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "missing")
