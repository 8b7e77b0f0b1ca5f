"""Whatever differs between the runs of a table is listed in its class: planted differences, one by one and all together."""

from pathlib import Path

import pytest

import src.compare as compare
from src.report.comparison import compare_runs
from src.runs.folder import find_runs
from tests.support.run_folders import made_up_environment, make_run

STUDIED, FAIRNESS, HARMLESS = "studied", "costs fairness", "harmless"
WHERE = made_up_environment()
# What is planted in a run: its class, its name in the list, and what make_run gets
PLANTED = {
    "backbone": (STUDIED, "model.backbone", {"config": {"model.init_args.backbone": "src.backbones.ResNet"}}),
    "learning rate": (STUDIED, "model.lr", {"config": {"model.init_args.lr": 0.5}}),
    "modalities": (STUDIED, "data.modalities", {"config": {"data.init_args.modalities": ["audio"]}}),
    "precision": (FAIRNESS, "trainer.precision", {"config": {"trainer.precision": "bf16-mixed"}}),
    "compile": (FAIRNESS, "compile", {"config": {"compile": True}}),
    "label smoothing": (FAIRNESS, "model.label_smoothing", {"config": {"model.init_args.label_smoothing": 0.1}}),
    "limited batches": (FAIRNESS, "trainer.limit_train_batches", {"config": {"trainer.limit_train_batches": 5}}),
    "clipping": (FAIRNESS, "trainer.gradient_clip_val", {"config": {"trainer.gradient_clip_val": 1.0}}),
    "skipping": (FAIRNESS, "data.on_bad_sample", {"config": {"data.init_args.on_bad_sample": "skip"}}),
    "skipped": (FAIRNESS, "skipped samples", {"results": {"bad_samples": 3}}),
    "torch": (FAIRNESS, "package torch", {"environment": {"packages": {**WHERE["packages"], "torch": "2.12.0"}}}),
    "dirty": (FAIRNESS, "uncommitted changes", {"environment": {"git": {"commit": "c" * 40, "dirty": True}}}),
    "commit": (FAIRNESS, "commit", {"environment": {"git": {"commit": "d" * 40, "dirty": False}}}),
    "hardware": (FAIRNESS, "hardware", {"environment": {"gpus": ["H100"]}}),
    "determinism": (FAIRNESS, "torch deterministic", {"environment": {"torch": {"deterministic": True}}}),
    "workers": (HARMLESS, "data.num_workers", {"config": {"data.init_args.num_workers": 4}}),
    "log interval": (HARMLESS, "trainer.log_every_n_steps", {"config": {"trainer.log_every_n_steps": 7}}),
    "checkpoints": (HARMLESS, "trainer.enable_checkpointing", {"config": {"trainer.enable_checkpointing": False}}),
    "progress": (HARMLESS, "trainer.enable_progress_bar", {"config": {"trainer.enable_progress_bar": False}}),
    "folder": (HARMLESS, "data.data_dir", {"config": {"data.init_args.data_dir": "/elsewhere"}}),
    "python": (HARMLESS, "python", {"environment": {"python": "3.12.1"}}),
}


def listed(folder: Path) -> dict[str, str]:
    return {each.name: each.kind for each in compare_runs(find_runs([folder])).differing}


@pytest.mark.parametrize("name", PLANTED)
def test_a_difference_between_variants_or_seeds_is_listed_alone_and_in_its_class(name, tmp_path):
    kind, shown, planted = PLANTED[name]
    for seed in range(2):
        make_run(tmp_path / "runs", "usual", seed, samples=50, rows=2)
        make_run(tmp_path / "runs", "other", seed, samples=50, rows=2, **planted)
    assert listed(tmp_path / "runs") == {shown: kind}
    for seed in range(2):
        make_run(tmp_path / "one", "variant", seed, samples=50, rows=2, **(planted if seed else {}))
    comparison = compare_runs(find_runs([tmp_path / "one"]))
    assert {each.name: each.kind for each in comparison.differing} == {shown: kind}
    assert (len(comparison.records), comparison.excluded) == (2, [])
    option = "config" in planted
    assert len(comparison.variants) == (2 if option and kind != HARMLESS else 1)  # a mean is of runs with equal options


def test_all_planted_differences_are_listed_together_with_who_has_them(tmp_path, capsys):
    kinds = [kind for kind, _, _ in PLANTED.values()]
    assert (kinds.count(STUDIED) + kinds.count(FAIRNESS), kinds.count(HARMLESS)) == (15, 6)
    make_run(tmp_path, "usual", 0, samples=50, rows=2)
    for number, (_, _, planted) in enumerate(PLANTED.values()):
        make_run(tmp_path, f"variant_{number}", 0, samples=50, rows=2, **planted)
    comparison = compare.main([str(tmp_path), "--html", str(tmp_path / "page.html"), "--reference", "usual"])
    assert {each.name: each.kind for each in comparison.differing} == {n: k for k, n, _ in PLANTED.values()}
    shown, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    assert "Differs, costs fairness:" in shown
    precision = next(each for each in comparison.differing if each.name == "trainer.precision")
    assert precision.values["bf16-mixed"] == ["variant_3"]
    assert "bf16-mixed (variant_3)" in precision.line
    assert all(name in page for _, name, _ in PLANTED.values())


def test_runs_that_differ_in_nothing_but_their_seed_have_no_differences(tmp_path):
    for cell in ("a", "b"):
        for seed in range(2):
            make_run(tmp_path, cell, seed, samples=50, rows=2)
    assert listed(tmp_path) == {}


def test_options_of_another_class_are_told_by_the_class_alone(tmp_path):
    make_run(tmp_path, "a", 0, samples=50, rows=2)
    other = {"model.class_path": "src.tasks.LinearProbe", "model.init_args.lr": 0.5, "model.init_args.weights": "w"}
    make_run(tmp_path, "b", 0, samples=50, rows=2, config=other)
    assert listed(tmp_path) == {"model.class_path": STUDIED}
