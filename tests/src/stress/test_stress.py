"""`evaluate --stress` on a real run, and calibration on scores whose calibration is known."""

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import src.evaluate as evaluate
import src.fit as fit
from datamodules import UserError
from src.metrics.calibration import calibration, fitted_temperature
from src.stress.measure import CLEAN, conditions_of, measure, spread_evenly
from tests.support import DIGITS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return fit.main(["--config", DIGITS, "--trainer.max_epochs", "4", "--runs_dir", str(folder)])


def test_a_run_is_measured_in_one_command_whatever_the_batch_size(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    clean = evaluate.main(["--run", str(run.folder), "--stress", "--samples", "0"])
    printed = capsys.readouterr().out
    record = json.loads((run.folder / "stress_last.json").read_text())
    assert clean["top1"] == pytest.approx(run.results().metrics["test"]["top1"])
    assert (run.folder / "pictures/stress_last.png").stat().st_size > 10_000
    assert {condition["name"] for condition in record["conditions"]} == {
        "noise", "blur", "low resolution", "occlusion", "dropped elements",
    }  # fmt: skip
    assert all(f"{condition['metrics']['top1']:.4f}" in printed for condition in record["conditions"])
    for condition in record["conditions"]:
        found = condition["difference"]
        assert found["mean"] == pytest.approx(condition["metrics"]["top1"] - clean["top1"])
        assert found["low"] <= found["mean"] <= found["high"]
    assert record["calibration"]["clean"]["accuracy"] == pytest.approx(clean["top1"])
    assert record["calibration"]["with_temperature"]["nll"] < record["calibration"]["clean"]["nll"] + 0.02

    evaluate.main(["--run", str(run.folder), "--stress", "--samples", "0", "--data.batch_size", "37"])
    again = json.loads((run.folder / "stress_last.json").read_text())
    for first, second in zip(record["conditions"], again["conditions"], strict=True):
        assert first["metrics"]["top1"] == pytest.approx(second["metrics"]["top1"], abs=1 / 300)  # rounding moves ties


def test_every_subset_of_modalities_goes_missing(clip_spec):
    class Data:
        spec = clip_spec
        flatten = type("Flatten", (), {"modalities": {"audio": object(), "video": object()}})

    found = conditions_of(Data)
    assert found[0] == CLEAN
    assert {c.modalities for c in found if c.name == "missing"} == {("audio",), ("video",)}


def test_tasks_without_scores_are_refused_in_one_line():
    class Cli:
        datamodule = None
        model = type("Detection", (), {"test_metrics": None})()

    with pytest.raises(UserError, match="not Detection"):
        measure(Cli)


def drawn_labels(scores: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(0)
    probabilities = np.exp(log_softmax(scores.numpy(), axis=1))
    return torch.tensor([rng.choice(len(p), p=p / p.sum()) for p in probabilities])


def test_scores_that_labels_were_drawn_from_are_calibrated_and_scaled_ones_are_mended_by_temperature():
    scores = torch.randn(6000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    target = drawn_labels(scores)
    honest, sure = calibration(scores, target), calibration(scores * 3, target)
    assert honest["ece"] < 0.02 < 0.1 < sure["ece"]
    assert honest["nll"] < sure["nll"]
    assert honest["brier"] < sure["brier"]
    assert honest["accuracy_at_50"] > honest["accuracy_at_90"] > honest["accuracy"]
    assert fitted_temperature(scores * 3, target) == pytest.approx(3, rel=0.05)


def test_labels_that_are_drawn_one_by_one_are_calibrated_too():
    scores = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    target = (torch.rand(3000, 4, generator=torch.Generator().manual_seed(1)) < scores.sigmoid()).long()
    assert calibration(scores, target)["ece"] < 0.02
    assert fitted_temperature(scores * 0.5, target) == pytest.approx(0.5, rel=0.08)


def test_some_samples_are_spread_evenly_with_all_their_windows():
    keys = [f"s{n:02d}@{w:02d}" for n in range(10) for w in range(3)]
    rows = spread_evenly(keys, 4)
    assert [keys[row] for row in rows] == [f"s{n:02d}@{w:02d}" for n in (0, 2, 5, 7) for w in range(3)]
    assert list(spread_evenly(keys, 0)) == list(spread_evenly(keys, 10)) == list(range(30))


def test_some_samples_are_measured_where_that_is_asked_for(run, capsys):
    evaluate.main(["--run", str(run.folder), "--stress", "--samples", "50"])
    assert "50 of " in capsys.readouterr().out
    record = json.loads((run.folder / "stress_last.json").read_text())
    assert record["samples"] == 50 < record["of"]
    with pytest.raises(UserError, match="--samples is 5: give it with --stress"):
        evaluate.main(["--run", str(run.folder), "--samples", "5"])
