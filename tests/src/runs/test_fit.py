"""Training a cell on the digits: what the run folder holds, that it repeats bit by bit, and that evaluate agrees."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml

import src.evaluate as evaluate
import src.fit as fit
from src.runs.folder import Run
from tests.support import DIGITS

SHORT = ["--trainer.max_epochs", "2"]


def train(runs_dir: Path, *options: str, config: str = DIGITS) -> tuple[Path, dict]:
    """The run folder and what results.json holds."""
    run = fit.main(["--config", config, "--runs_dir", str(runs_dir), *options])
    return run.folder, run.read("results.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder, _ = train(tmp_path_factory.mktemp("runs"), "--trainer.max_epochs", "15")
    return folder


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def test_a_short_training_learns_the_digits(run):
    assert read(run, "results.json")["metrics"]["test"]["top1"] > 0.9


def test_run_folder_holds_what_is_documented(run):
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    files = {"config.yaml", "environment.json", "data.json", "metrics.csv", "results.json", "predictions.npz"}
    assert files | {"checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= found
    assert not [name for name in found if name.endswith(".part")]


def test_the_kept_predictions_are_those_that_were_measured(run):
    predictions, results = np.load(run / "predictions.npz"), read(run, "results.json")
    sample, target, predicted = (predictions[name] for name in ("sample", "target", "predicted"))
    assert (np.diff(sample) > 0).all()
    assert (predicted == target).mean() == pytest.approx(results["metrics"]["test"]["top1"], rel=1e-6)
    assert len(sample) == results["metrics"]["test"]["samples"]
    assert "highest scores" in results["metric_definition"]


def test_results_have_metrics_with_their_sample_counts_and_costs(run):
    results = read(run, "results.json")
    assert (results["experiment"], results["cell"], results["seed"]) == ("digits", "perceiver", 0)
    for split in ("val", "test"):
        assert set(results["metrics"][split]) == {"loss", "top1", "top5", "samples"}
        assert results["metrics"][split]["samples"] == 300
    weights = Run(run).weights()
    assert results["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert results["steps"] == 15 * (1197 // 64)
    assert results["epochs"] == 15
    assert results["bad_samples"] == 0
    for name in ("flops_per_example", "train_samples_per_second", "wall_time_seconds"):
        assert results[name] > 0
    assert results["peak_memory"]["bytes"] > 0


def test_data_json_has_the_fingerprint_and_the_splits(run):
    data = read(run, "data.json")
    assert data["dataset"] == "Digits"
    assert len(data["fingerprint"]) == 64
    assert {name: split["samples"] for name, split in data["splits"].items()} == {
        "train": 1197,
        "val": 300,
        "test": 300,
    }
    assert len({split["keys_sha256"] for split in data["splits"].values()}) == 3
    assert data["spec"]["modalities"]["image"]["elements"] == 64


def test_environment_json_says_where_and_with_what(run):
    environment = read(run, "environment.json")
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(environment["git"]) == {"commit", "dirty"}
    assert environment["cpu_cores"] >= 1
    assert environment["threads"] == torch.get_num_threads()


def test_metrics_csv_has_losses_and_a_validation_of_every_epoch(run):
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    validated = [row for row in rows if row["val/top1"]]
    assert [int(row["epoch"]) for row in validated] == list(range(15))
    assert float(validated[-1]["val/top1"]) == read(run, "results.json")["metrics"]["val"]["top1"]
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert losses[-1] < losses[0] / 2


def test_best_checkpoint_has_the_best_validation_and_last_the_results(run):
    best = evaluate.main(["--run", str(run), "--split", "val", "--checkpoint", "best"])["top1"]
    with (run / "metrics.csv").open() as file:
        assert best == max(float(row["val/top1"]) for row in csv.DictReader(file) if row["val/top1"])


@pytest.mark.parametrize("split", ["test", "val"])
def test_evaluate_gives_exactly_the_metrics_of_the_results(run, split):
    found = evaluate.main(["--run", str(run), "--split", split])
    assert found == read(run, "results.json")["metrics"][split]
    kept = read(run, f"evaluation_{split}_last.json")
    assert (kept["metrics"], kept["same_data_as_training"]) == (found, True)


def test_evaluate_in_other_batches_counts_each_sample_once(run):
    found = evaluate.main(["--run", str(run), "--data.batch_size", "7"])
    wanted = read(run, "results.json")["metrics"]["test"]
    assert (found["samples"], found["top1"]) == (300, wanted["top1"])
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)


def test_evaluate_leaves_the_run_as_it_was(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if not path.name.startswith("evaluation")}
    evaluate.main(["--run", str(run)])
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if not path.name.startswith("evaluation")}
    assert {p: t for p, t in after.items() if p != run} == {p: t for p, t in before.items() if p != run}


def test_config_yaml_is_complete_and_trains_the_same_again(tmp_path):
    first, results = train(tmp_path / "a", *SHORT)
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert config["data"]["init_args"]["seed"] == 0
    assert config["model"]["init_args"]["data_spec"]["task"] == "single_label"
    assert config["model"]["init_args"]["label_smoothing"] == 0  # a default that the YAML does not name
    second, again = train(tmp_path / "b", config=str(first / "config.yaml"))
    assert again["metrics"] == results["metrics"]
    other = yaml.safe_load((second / "config.yaml").read_text())
    assert {**other, "runs_dir": None, "config": None} == {**config, "runs_dir": None, "config": None}


def test_the_same_seed_repeats_every_digit_and_the_first_run_is_kept(tmp_path):
    folder, first = train(tmp_path, *SHORT)
    weights = Run(folder).weights()
    _, second = train(tmp_path, *SHORT)
    assert second["metrics"] == first["metrics"]
    kept = folder.with_name("seed0.1")
    assert read(kept, "results.json") == first
    assert all(torch.equal(tensor, weights[name]) for name, tensor in Run(folder).weights().items())
    _, other = train(tmp_path, *SHORT, "--seed_everything", "1")
    assert other["metrics"]["test"] != first["metrics"]["test"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["seed0", "seed0.1", "seed1"]


def test_wandb_offline_files_lie_in_the_run_folder(tmp_path, monkeypatch, request):
    def forget() -> None:
        wandb.finish()  # Lightning goes on with an unfinished run
        wandb.teardown()  # it reads the environment once

    forget()
    request.addfinalizer(forget)
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder, _ = train(tmp_path, "--trainer.max_epochs", "1")
    (offline,) = folder.glob("wandb/offline-run-*")
    assert list(offline.glob("run-*.wandb"))
