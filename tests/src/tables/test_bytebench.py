"""From archives of runs to CSV files, tables and pictures: every figure is a run's, and the same bytes come out again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.runs.archive import pack
from src.runs.folder import find_runs
from src.stats.intervals import Squares
from src.suites.columns import archived
from src.suites.tuning import open_study
from src.tables import __main__ as tables
from src.tables import bytebench, collect, text
from tests.support.run_folders import make_run

QUALITIES = {"perceiver": 0.8, "transformer": 0.5, "own_order_perceiver": 0.8, "own_order_resnet": 0.3, "resnet": 0.9}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A project with two archives of made-up runs: garments with the whole budget and with a third of it."""
    import optuna

    runs_dir, folder = tmp_path / "made", tmp_path / "results/bytebench"
    for suite, steps in (("bytebench_garments", 120), ("bytebench_garments_x0.3", 36)):
        claims = ["perceiver > transformer on top1", "resnet > own_order_resnet on top1"]
        entry = {"name": suite, "source": "none", "published": {}, "reference": "perceiver", "claims": claims}
        for position, (cell, quality) in enumerate(QUALITIES.items()):
            for seed in range(3):
                given = {"suite": entry | {"position": position, "baselines": ["trivial_hog"]}}
                make_run(
                    runs_dir, cell, seed, quality * (1 if steps == 120 else 0.7), suite, steps=steps, results=given
                )
        damaged = {"name": "noise", "modalities": ["image"], "level": 5, "metrics": {"top1": 0.2}}
        stress = {"metric": "top1", "samples": 256, "of": 500, "clean": {"top1": 0.8}, "conditions": [damaged]}
        scores = {"ece": 0.125, "brier": 0.3, "nll": 0.9}
        stress["calibration"] = {"clean": scores, "temperature": 1.5, "with_temperature": scores | {"ece": 0.0625}}
        (runs_dir / suite / "perceiver/seed0/stress_last.json").write_text(json.dumps(stress))
    trials = runs_dir / "bytebench_garments_trials"
    study = open_study(trials, "perceiver")
    for lr, value in ((0.00101, 0.9), (0.003, 0.8)):  # the best lies on the edge
        study.add_trial(
            optuna.trial.create_trial(
                params={"lr": lr},
                distributions={"lr": optuna.distributions.FloatDistribution(0.001, 0.01, log=True)},
                value=value,
            )
        )
    chosen = {"perceiver": {"trials": 2, "options": {"lr": 0.00101}, "trial": 0, "val": 0.9}}
    (trials / "chosen.json").write_text(json.dumps(chosen))
    for suite in ("bytebench_garments", "bytebench_garments_x0.3"):
        pack(folder / f"{suite}.tar.xz", archived(suite, runs_dir))
    marks = "".join(f"<!-- table {name} -->\n<!-- end -->\n\n" for name in bytebench.TABLES)
    (tmp_path / "README.md").write_text(marks)
    monkeypatch.setattr(text, "ROOT", tmp_path)
    return tmp_path


def test_pages_come_from_the_archives_and_come_out_the_same_again(root, capsys):
    written = tables.main([])
    names = {path.relative_to(root / "results/bytebench").name for path in written if path.name != "README.md"}
    assert names == {
        *(f"{name}.csv" for name in ("runs", "cells", "pairs", "claims", "precision", "stress", "trials", "time")),
        *(f"{name}.png" for name in ("differences", "stress", "budgets")),
    }
    page, garments = (root / "README.md").read_text(), root / "made/bytebench_garments"
    top1 = {
        cell: 100 * np.mean([run.results().metrics["test"]["top1"] for run in find_runs([garments / cell])])
        for cell in QUALITIES
    }
    row = f"| garments, pixels, top-1 | {top1['perceiver']:.1f} | {top1['transformer']:.1f} |  | **{top1['resnet']:.1f}** |"
    assert row in page
    assert f"| garments, pixels | 0 | {top1['transformer'] - top1['perceiver']:+.1f} ± " in page
    assert "| garments | perceiver | 80.0 | 20.0 | 20.0 (image, noise) |  | 12.5 | 6.2 |" in page
    assert "| garments | `resnet > own_order_resnet on top1` | +" in page
    assert "| **shown** |" in page
    assert "| garments |  | 30 in 0.51 h |  | 0.25 h |" in page
    assert "| 0.3 of the budget | 1 of the budget |" in page

    capsys.readouterr()
    assert tables.main(["--check"]) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("results/bytebench/cells.csv", (b"0.8", b"0.9")),
        ("results/bytebench/budgets.png", (b"IEND", b"IENE")),
        ("README.md", (b"shown", b"refuted")),
    ],
)
def test_what_was_changed_by_hand_is_found_and_made_anew(root, capsys, name, change):
    tables.main([])
    path, before = root / name, (root / name).read_bytes()
    path.write_bytes(before.replace(*change))
    assert path.read_bytes() != before
    capsys.readouterr()
    with pytest.raises(SystemExit):
        tables.main(["--check"])
    assert f"{name}: out of date" in capsys.readouterr().out
    tables.main([])
    assert path.read_bytes() == before


def test_a_choice_on_the_edge_of_its_space_is_told(root):
    found = pd.DataFrame(collect.tuned("bytebench_garments", root / "made/bytebench_garments_trials"))
    assert found["chosen"].tolist() == found["on_edge"].tolist() == [True, False]
    assert found["val"].tolist() == [0.9, 0.8]


@pytest.mark.parametrize(
    ("of_seeds", "of_clusters", "what"), [(0.2, 0.01, "seeds"), (0.01, 1.0, "times the test samples")]
)
def test_what_would_make_an_interval_narrow_makes_it_narrow(of_seeds, of_clusters, what):
    """The number that is told is the least that does."""
    squares = Squares(of_seeds, of_clusters, 0.01, 5, 100)
    assert squares.half_width() > collect.GOAL
    number, _, says = collect.needed(squares, collect.GOAL).partition(" ")
    assert says == what

    def half(count: int) -> float:
        return (squares.with_seeds(count) if what == "seeds" else squares.with_clusters(100 * count)).half_width()

    assert half(int(number)) <= collect.GOAL < half(int(number) - 1)


def test_with_other_clusters_a_table_has_the_squares_that_simulation_gives():
    draws = np.random.default_rng(0)

    def tables_of(clusters: int) -> np.ndarray:
        seeds, samples = draws.normal(size=(4000, 4, 1)), 3 * draws.normal(size=(4000, 1, clusters))
        return (seeds + samples + 2 * draws.normal(size=(4000, 4, clusters))).mean((-2, -1))

    expected = Squares(4 + 6 * 1, 4 + 4 * 9, 4, 4, 6).with_clusters(24)
    assert expected.variance == pytest.approx(tables_of(24).var(), rel=0.1)


@pytest.mark.parametrize(
    "metrics", [{"top1": 0.5, "loss": 1.0}, {"map": 0.5}, {"map": 0.5, "segm_map": 0.4, "segm_map_50": 0.8}]
)
def test_every_main_metric_of_the_table_has_a_title(metrics):
    assert bytebench.metric_of(metrics) in bytebench.TITLES
