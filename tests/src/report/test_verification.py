"""Metrics are computed again from the predictions: results that were edited by hand do not pass."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import src.api as api
import src.compare as compare
import src.fit as fit
from datamodules import UserError
from src.metrics.classification import MultiLabelMetrics, SingleLabelMetrics
from src.metrics.recomputed import recompute
from src.metrics.regression import RegressionMetrics
from src.report.records import Record
from src.runs.folder import Run
from tests.support import DIGITS, ROOT
from tests.support.run_folders import make_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    return fit.main(["--config", DIGITS, "--trainer.max_epochs", "1", "--runs_dir", str(runs)]).folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy" / "digits" / "perceiver" / "seed0")


def edit(folder: Path, split: str, name: str, value: float) -> None:
    path = folder / "results.json"
    content = json.loads(path.read_text())
    content["metrics"][split][name] = value
    path.write_text(json.dumps(content))


def test_a_run_is_verified_from_its_predictions(run):
    record = Record.of(Run(run))
    assert (record.verified, record.contradictions) == (True, [])
    assert record.results.schema == 3
    assert record.results.identity == Run(run).identity()


@pytest.mark.parametrize(
    ("split", "name", "says"),
    [
        ("test", "top1", "results.json says top1 0.99, predictions.npz gives 0"),
        ("test", "samples", "results.json says samples 0.99, predictions.npz gives 300"),
        ("test", "loss", "the metrics in results.json were changed after they were written"),
        ("val", "top1", "the metrics in results.json were changed after they were written"),
    ],
)
def test_a_metric_that_was_edited_by_hand_does_not_pass(run, tmp_path, capsys, split, name, says):
    edit(run, split, name, 0.99)
    with pytest.raises(UserError, match=says):
        compare.main([str(run)])
    make_run(tmp_path, "other", 0)
    runs, table = [str(run), str(tmp_path / "made_up")], tmp_path / "table.csv"
    with pytest.raises(UserError, match=says.partition(" gives")[0]):
        compare.main([*runs, "--csv", str(table)])
    assert "0.9900" not in capsys.readouterr().out
    assert table.is_file()  # of the others
    assert [out.folder for out in api.compare(runs).excluded] == [str(run)]


def test_predictions_that_were_exchanged_do_not_pass(run):
    with np.load(run / "predictions.npz") as file:
        arrays = dict(file)
    arrays["predicted"] = (arrays["predicted"] + 1) % 10
    np.savez_compressed(run / "predictions.npz", **arrays)
    edit(run, "test", "top1", float((arrays["predicted"] == arrays["target"]).mean()))
    assert len(Record.of(Run(run)).contradictions) == 2


def test_a_config_that_was_edited_afterwards_is_told(run, tmp_path):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    make_run(tmp_path, "other", 0)
    [out] = api.compare([run, tmp_path / "made_up"]).excluded
    assert out.reasons == ("results.json was written with another config, data or code than this folder has",)


def test_runs_that_kept_no_predictions_compare_and_are_not_verified(run):
    (run / "predictions.npz").unlink()
    assert not Record.of(Run(run)).verified
    assert len(compare.main([str(run)]).records) == 1


def test_a_run_of_version_0_1_is_verified_and_its_edited_metric_found(tmp_path):
    folder = shutil.copytree(ROOT / "tests" / "first_house" / "finished" / "seed0", tmp_path / "old")
    assert Record.of(Run(folder)).verified
    edit(folder, "test", "top1", 0.59)
    assert Record.of(Run(folder)).contradictions == ["results.json says top1 0.59, predictions.npz gives 0.58"]


@pytest.mark.parametrize("kind", [SingleLabelMetrics, MultiLabelMetrics, RegressionMetrics])
def test_all_that_follows_from_predictions_is_what_was_measured(kind):
    scores = torch.randn(200, 7)
    target = {
        SingleLabelMetrics: torch.randint(7, (200,)),
        MultiLabelMetrics: (torch.rand(200, 7) < 0.3).long(),
        RegressionMetrics: torch.randn(200, 7),
    }[kind]
    metrics = kind()
    metrics.update(scores, target, torch.ones(200), [f"s{number}" for number in range(200)])
    measured = {name: value.float().item() for name, value in metrics.compute().items()}
    again = recompute(metrics.predictions(), measured)
    assert again == {name: pytest.approx(measured[name], rel=1e-6) for name in again}
    assert set(measured) - set(again) <= {"top5"}
