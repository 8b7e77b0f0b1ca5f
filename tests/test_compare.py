"""Comparing finished runs: the table, its CSV, and the mark on runs that were measured on other data."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from datamodules import UserError
from src import compare, fit

CONFIG = str(Path(__file__).parent.parent / "configs" / "digits_perceiver.yaml")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of two finished runs, seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        options = ["--seed_everything", seed, "--runs_dir", str(folder)]
        fit.main(["--config", CONFIG, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "5", *options])
    return folder


def on_other_data(runs: Path, to: Path, name: str) -> Path:
    """A copy of the runs in which seed 1 was measured on other bytes, or on other members of a split."""
    shutil.copytree(runs, to)
    path = to / "digits" / "perceiver" / "seed1" / "data.json"
    data = json.loads(path.read_text())
    if name == "fingerprint":
        data["fingerprint"] = "f" * 64
    else:
        data["splits"]["test"]["keys_sha256"] = "f" * 64
    path.write_text(json.dumps(data))
    return to


def test_table_has_one_row_per_run_with_its_results(runs, capsys):
    frame = compare.main([str(runs)])
    assert frame["seed"].tolist() == [0, 1]
    for row in frame.to_dict("records"):
        results = json.loads((Path(row["run"]) / "results.json").read_text())
        assert row["top1"] == results["metrics"]["test"]["top1"]
        assert (row["samples"], row["parameters"]) == (300, results["parameters"])
        assert row["flops_per_example"] == results["flops_per_example"]
    assert frame["data"].nunique() == 1
    shown = capsys.readouterr().out
    assert f"{frame['top1'][0]:.4f}" in shown
    assert "differs" not in shown


def test_runs_may_be_named_one_by_one_and_count_once(runs):
    folders = [str(runs / "digits" / "perceiver" / f"seed{seed}") for seed in (1, 0)]
    assert compare.main(folders)["seed"].tolist() == [1, 0]
    assert len(compare.main([*folders, str(runs)])) == 2


@pytest.mark.parametrize("name", ["fingerprint", "members"])
def test_runs_on_other_data_are_marked(runs, name, tmp_path, capsys):
    frame = compare.main([str(on_other_data(runs, tmp_path / "runs", name))])
    assert frame["data"].tolist() == ["A", "B"]
    shown = capsys.readouterr().out
    assert "B differs" in shown
    assert "not measured on the same data" in shown


def test_csv_has_the_unrounded_table(runs, tmp_path):
    path = tmp_path / "new" / "table.csv"
    frame = compare.main([str(runs), "--csv", str(path)])
    written = pd.read_csv(path)
    assert written["top1"].tolist() == pytest.approx(frame["top1"].tolist(), rel=1e-14)
    assert written["loss"].tolist() == pytest.approx(frame["loss"].tolist(), rel=1e-14)


def test_val_split_has_its_own_metrics(runs):
    frame = compare.main([str(runs), "--split", "val"])
    results = json.loads((Path(frame["run"][0]) / "results.json").read_text())
    assert frame["top1"][0] == results["metrics"]["val"]["top1"]


def test_a_folder_without_runs_raises_user_error(tmp_path):
    with pytest.raises(UserError, match=r"holds no finished run.*give a run folder"):
        compare.main([str(tmp_path)])
    with pytest.raises(UserError, match="nowhere"):
        compare.main([str(tmp_path / "nowhere")])


def test_a_run_whose_files_are_broken_raises_user_error(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs" / "digits" / "perceiver" / "seed0" / "data.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"data.json is not JSON"):
        compare.main([str(tmp_path / "runs")])
    path.unlink()
    with pytest.raises(UserError, match=r"has no data.json"):
        compare.main([str(tmp_path / "runs")])
