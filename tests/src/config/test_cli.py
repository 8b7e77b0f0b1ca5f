"""A user's mistake ends in one line that says what, where and what to do, and in exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

import src.compare as compare
import src.evaluate as evaluate
import src.fit as fit
from datamodules import UserError
from datamodules.clips import compose_dialpad
from src.cli import ByteBenchCLI
from src.config.command import run_command
from src.config.error_messages import COMMAND_OPTIONS, one_line
from tests.support import DIGITS, ROOT

BACKBONE = "model.init_args.backbone"


def error_line(main, args: list[str], monkeypatch, capsys) -> str:
    """What the command prints on stderr, checked to be one line, with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["src/command.py", *args])
    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 400
    return line


def changed_config(to: Path, key: str, value: object) -> list[str]:
    """Options that name a copy of the digits config in which one key has another value."""
    config = yaml.safe_load(Path(DIGITS).read_text())
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    path = to / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", str(path), "--runs_dir", str(to / "runs")]


def test_a_misspelt_option_ends_a_real_process_with_one_line(tmp_path):
    command = [sys.executable, "-m", "src.fit", "--config", DIGITS, "--trainer.max_epoch", "3"]
    command += ["--runs_dir", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: --trainer.max_epoch is not an option: did you mean --trainer.max_epochs?"
    ]


def test_debug_keeps_the_exception(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["src/fit.py", "--debug", "--config", DIGITS, "--trainer.max_epoch", "3"])
    with pytest.raises(UserError, match=r"--trainer\.max_epoch is not an option"):
        run_command(fit.main)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max_epochs", "3"], "--max_epochs is not an option: did you mean --trainer.max_epochs?"),
        (["--experiments", "x"], "--experiments is not an option: did you mean --experiment?"),
        (["--data.batchsize", "3"], "data: datamodules.Digits has no option 'batchsize': did you mean batch_size?"),
        (
            ["--model.backbone.num_latent", "3"],
            "model.backbone: src.backbones.Perceiver has no option 'num_latent': did you mean num_latents?",
        ),
        (["--trainer.max_epochs", "three"], "trainer.max_epochs is 'three': pass int or none"),
        (["--data.batch_size", "2.5"], "data.batch_size is '2.5': pass int"),
        (["--model.optimizer.lr", "fast"], "model.optimizer.lr is 'fast': pass float"),
        (["stray"], "'stray' is not an option"),
        (["--config", "configs/digit_perceiver.yaml"], "did you mean digits_perceiver.yaml?"),
        (["--trainer.accelerator", "tpuz"], "tpuz"),
    ],
)
def test_a_wrong_option_names_it_and_the_nearest_one(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    line = error_line(fit.main, ["--config", DIGITS, "--runs_dir", str(tmp_path), *options], monkeypatch, capsys)
    assert said in line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            f"{BACKBONE}.class_path",
            "src.backbones.Perciever",
            "model.backbone: src.backbones has no 'Perciever': did you mean src.backbones.Perceiver?",
        ),
        (f"{BACKBONE}.class_path", "src.backbonez.Perceiver", "did you mean src.backbones?"),
        (f"{BACKBONE}.class_path", "src.optim.Cosine", "model.backbone: src.optim.Cosine is not a Backbone"),
        ("data.class_path", "Digitz", "data: 'Digitz' is not a class path: did you mean datamodules.Digits?"),
        ("data.class_path", "src.backbones.Perceiver", "src.backbones.Perceiver is not a ByteArrayDataModule"),
        (f"{BACKBONE}.init_args.num_latent", 3, "has no option 'num_latent': did you mean num_latents?"),
        (f"{BACKBONE}.init_args.latent_dim", "wide", "model.backbone.latent_dim is 'wide': pass int"),
        ("model.init_args.schedule.init_args.warmups", 0.1, "src.optim.Cosine has no option 'warmups': did you mean"),
        ("model.init_args.schedule.init_args.warmup", 5, "warmup is 5.0: pass a fraction of training"),
        (f"{BACKBONE}.init_args.self_heads", 5, "latent_dim 64 does not divide by self_heads 5: change one"),
        (f"{BACKBONE}.init_args.num_latents", -3, "num_latents is -3: pass 1 to 1,000,000"),
        ("model.init_arg", {"a": 1}, "model needs the keys class_path and init_args"),
        ("trainer.max_epoch", 3, "trainer has no option 'max_epoch': did you mean max_epochs?"),
        ("experimnt", "x", "the config has no option 'experimnt': did you mean experiment?"),
    ],
)
def test_a_wrong_key_or_value_in_a_config_names_it(key, value, said, tmp_path, monkeypatch, capsys):
    assert said in error_line(fit.main, changed_config(tmp_path, key, value), monkeypatch, capsys)


def test_no_config_and_broken_yaml_say_what_to_do(tmp_path, monkeypatch, capsys):
    assert "--config configs/quickstart.yaml" in error_line(fit.main, [], monkeypatch, capsys)
    path = tmp_path / "broken.yaml"
    path.write_text("model: [1,\ndata: 3")
    assert "not valid YAML" in error_line(fit.main, ["--config", str(path)], monkeypatch, capsys)


def test_a_missing_data_folder_is_named_with_the_command_that_fills_it(tmp_path, monkeypatch, capsys):
    nowhere = str(tmp_path / "nowhere")
    args = changed_config(tmp_path, "data", {"class_path": "datamodules.FashionMNIST"})
    line = error_line(fit.main, [*args, "--data.data_dir", nowhere], monkeypatch, capsys)
    assert f"Fashion-MNIST is not in {nowhere}" in line
    assert "python -m datamodules.prepare fashion_mnist" in line


def test_a_truncated_shard_is_named_with_the_command_that_mends_it(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "dialpad"
    compose_dialpad.compose(folder, (20, 10, 10), workers=1)
    capsys.readouterr()
    shard = folder / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1000])
    data = {"class_path": "datamodules.Dialpad", "init_args": {"data_dir": str(folder), "clips": [20, 10, 10]}}
    line = error_line(fit.main, changed_config(tmp_path, "data", data), monkeypatch, capsys)
    assert f"shard {shard} is damaged" in line
    assert "python -m datamodules.prepare dialpad" in line


def test_evaluating_on_data_of_other_classes_is_refused(tmp_path, monkeypatch, capsys):
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--runs_dir", str(tmp_path)]
    fit.main(["--config", DIGITS, *options])
    capsys.readouterr()
    run = str(tmp_path / "digits" / "perceiver" / "seed0")
    config = Path(run) / "config.yaml"
    changed = yaml.safe_load(config.read_text())
    changed["data"] = {"class_path": "datamodules.Dialpad"}
    config.write_text(yaml.safe_dump(changed))
    line = error_line(evaluate.main, ["--run", run], monkeypatch, capsys)
    assert "was trained for 10 classes" in line
    assert "has 20" in line


@pytest.mark.parametrize(
    ("main", "args", "said"),
    [
        (evaluate.main, [], "--run"),
        (evaluate.main, ["--run", "nowhere"], "nowhere has no data.json: give a run folder"),
        (evaluate.main, ["--run", "x", "--split", "trian"], "trian"),
        (compare.main, [], "no runs given: name run folders"),
        (compare.main, ["nowhere"], "nowhere holds no finished run"),
        (compare.main, ["x", "--cvs", "y"], "--cvs"),
    ],
)
def test_evaluate_and_compare_end_in_one_line_too(main, args, said, monkeypatch, capsys):
    assert said in error_line(main, args, monkeypatch, capsys)


def test_an_error_that_is_no_mistake_keeps_its_traceback(monkeypatch):
    def broken(args: list[str]) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(sys, "argv", ["src/fit.py"])
    with pytest.raises(KeyError, match="a bug"):
        run_command(broken)


def test_a_workers_stack_is_left_out():
    stack = 'Caught UserError in DataLoader worker process 0.\nTraceback (most recent call last):\n  File "x.py"\n'
    assert one_line(UserError(f"{stack}datamodules.errors.UserError: clip 3 is broken\n")) == "clip 3 is broken"


def test_options_that_are_suggested_exist(tmp_path):
    config = ByteBenchCLI(["--config", DIGITS, "--runs_dir", str(tmp_path)]).config
    assert isinstance(config, Namespace)
    assert {*COMMAND_OPTIONS} - {"variant"} == {*vars(config)} - {
        "data",
        "model",
        "trainer",
        "optimizer",
        "lr_scheduler",
    }


def test_one_batch_is_not_all_batches_whatever_was_imported_before(tmp_path):
    script = f"""
from typing import Optional, Union
Optional[Union[float, int]]  # from here on Python takes this for Optional[Union[int, float]], too
from src.cli import ByteBenchCLI
for given in ("1", "1.0"):
    options = ["--config", {DIGITS!r}, "--runs_dir", {str(tmp_path)!r}, "--trainer.limit_test_batches", given]
    print(ByteBenchCLI(options).config["trainer"]["limit_test_batches"])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1.0"]
