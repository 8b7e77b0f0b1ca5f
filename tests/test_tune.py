"""Tuning: equal for all variants, on val alone, kept over a kill, and recorded by the suite that uses it."""

import json
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from optuna.trial import TrialState

from datamodules import UserError
from src import suite, tune
from src.report import records
from src.runs.folder import find_runs
from src.suites.definition import load_suite
from src.suites.space import on_edge
from src.suites.tuning import draw_trials, expected_best, open_study, with_choices
from tests.support import ROOT

SPACE = {"model.optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.backbone.num_latents": [4, 8, 16]}
CONTENT = {
    "source": "none",
    "budget": {"max_steps": 3},
    "config": "digits_perceiver",
    "space": SPACE,
    "baseline": "majority",
    "claims": ["b > trivial_majority on top1"],
    "variants": [{"name": "a"}, {"name": "b", "overrides": {"model.backbone.cross_attends": 1}}],
}


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "configs" / "suites"
    folder.mkdir(parents=True)
    (tmp_path / "configs" / "digits_perceiver.yaml").write_text(
        (ROOT / "configs" / "digits_perceiver.yaml").read_text()
    )
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    return folder / "tiny.yaml"


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_expected_best_is_the_mean_over_all_draws(higher_is_better):
    values, best = [0.2, 0.9, 0.4], max if higher_is_better else min
    wanted = [np.mean([best(draw) for draw in product(values, repeat=n)]) for n in (1, 2, 3)]
    np.testing.assert_allclose(expected_best(values, higher_is_better), wanted)


def test_a_value_where_its_space_ends_is_on_the_edge():
    scale = {"low": 0.001, "high": 0.1, "log": True}
    assert [on_edge(scale, value) for value in (0.0011, 0.002, 0.01, 0.07, 0.095)] == [True, False, False, False, True]
    assert [on_edge([4, 8, 16], value) for value in (4, 8, 16)] == [True, False, True]
    assert not on_edge(["cube", "sphere", "none"], "cube")


def test_a_trial_depends_on_its_variant_and_number_alone(path, tmp_path):
    loaded = load_suite(path)
    a, b = loaded.variants[:2]

    def drawn(folder: str, variant, trials: int) -> list[dict]:
        found = draw_trials(open_study(tmp_path / folder, variant.name), loaded, variant, trials)
        return [trial.params for trial in found]

    whole = drawn("once", a, 4)
    drawn("twice", b, 1), drawn("twice", a, 2)
    assert drawn("twice", a, 4) == whole
    assert drawn("once", b, 4) != whole
    assert len({str(params) for params in whole}) == 4
    assert drawn("once", a, 2) == whole[:2]


def test_another_space_does_not_go_on_with_the_trials_of_the_first(path, tmp_path):
    first = load_suite(path)
    draw_trials(open_study(tmp_path / "t", "a"), first, first.variants[0], 2)
    path.write_text(yaml.safe_dump(CONTENT | {"space": {"model.optimizer.lr": [0.1, 0.01]}}))
    second = load_suite(path)
    with pytest.raises(UserError, match="a was tuned in another space than"):
        draw_trials(open_study(tmp_path / "t", "a"), second, second.variants[0], 2)


@pytest.mark.integration
def test_tune_then_suite_then_the_table(path, tmp_path, capfd):
    runs = tmp_path / "runs"
    chosen = tune.main([str(path), "--trials", "2", "--runs_dir", str(runs)])
    trials = find_runs([runs])
    assert sorted(run.folder.parent.name for run in trials) == ["a_trial0", "a_trial1", "b_trial0", "b_trial1"]
    for run in trials:
        assert run.results().metrics["test"] == {}
        assert not list(run.folder.glob("predictions*"))
    for name in ("a", "b"):
        values = [run.results().metrics["val"]["top1"] for run in trials if run.folder.parent.name.startswith(name)]
        assert chosen[name]["val"] == max(values)
        study = open_study(runs / "tiny_trials", name)
        assert [trial.value for trial in study.trials] == values
        assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert (runs / "tiny_trials" / "expected_best.csv").read_text().count("\n") == 5
    assert (runs / "tiny_trials" / "expected_best.png").read_bytes().startswith(b"\x89PNG")
    said = capfd.readouterr().out
    assert "expected_best.csv" in said
    edges = [name for name, c in chosen.items() if any(on_edge(SPACE[o], v) for o, v in c["options"].items())]
    assert all(f"warning: {name}" in said for name in edges)

    finished = suite.main([str(path), "--runs_dir", str(runs)])
    assert [run.folder.parent.name for run in finished] == ["a", "b", "trivial_majority"]
    for run in finished[:2]:
        options = chosen[run.folder.parent.name]["options"]
        entry = run.results().suite
        assert entry is not None
        assert entry.tuned is not None
        assert entry.tuned["trials"] == 2
        assert entry.tuned["options"] == options
        config = records.Record.of(run).config
        assert config["model.init_args.optimizer.init_args.lr"] == options["model.optimizer.lr"]
        assert config["model.init_args.backbone.init_args.num_latents"] == options["model.backbone.num_latents"]
    said = capfd.readouterr().out
    assert "trivial_majority" in said
    assert "next: python -m src.compare" in said
    with pytest.raises(UserError, match="has results on the test split, so choices are made"):
        tune.main([str(path), "--trials", "3", "--runs_dir", str(runs)])


def test_choices_that_lack_a_variant_or_are_broken_are_told(path, tmp_path):
    loaded, file = load_suite(path), tmp_path / "runs" / "tiny_trials" / "chosen.json"
    assert with_choices(loaded, tmp_path / "runs") == loaded
    file.parent.mkdir(parents=True)
    options = {"model.optimizer.lr": 0.01, "model.backbone.num_latents": 8}
    for content, says in (
        ({"a": {"trials": 2, "options": options}}, "b was not tuned as the others were"),
        ({"a": {"trials": 2, "options": {}}}, "a was tuned in another space"),
        ({"a": {"trials": "two", "options": {}}}, "trials"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=says):
            with_choices(loaded, tmp_path / "runs")


@pytest.mark.integration
def test_a_tune_that_is_killed_goes_on_with_the_trials_that_it_had_drawn(path, tmp_path):
    path.write_text(yaml.safe_dump(CONTENT | {"variants": [{"name": "a"}], "budget": {"max_steps": 100}}))
    folder = tmp_path / "runs" / "tiny_trials"
    options = [str(path), "--runs_dir", str(tmp_path / "runs"), "--trials"]
    command = [sys.executable, "-m", "src.tune", *options, "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert any("parameters" in line for line in process.stdout)  # the first trial has begun
        training = json.loads((folder / "a_trial0" / "seed0.lock").read_text())["pid"]
        os.kill(process.pid, signal.SIGKILL)
        os.kill(training, signal.SIGKILL)
    first = [trial.params for trial in open_study(folder, "a").trials]
    assert len(first) == 2
    assert tune.main([*options, "3"])["a"]["trials"] == 3
    study = open_study(folder, "a")
    assert [trial.params for trial in study.trials[:2]] == first
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert [(folder / f"a_trial{number}" / "seed0" / "results.json").is_file() for number in range(3)] == [True] * 3
