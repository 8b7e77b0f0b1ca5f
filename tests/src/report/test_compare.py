"""Comparing runs: one row per cell with intervals, differences, costs and published figures; rows per run; all outputs."""

import json
import re
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import src.compare as compare
import src.fit as fit
from datamodules import UserError
from src.report.comparison import compare_runs
from src.runs.folder import find_runs
from src.stats.intervals import of_table
from tests.support import DIGITS
from tests.support.run_folders import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of four finished runs: two cells with seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        for cell, latents in (("perceiver", "8"), ("small", "4")):
            options = ["--seed_everything", seed, "--runs_dir", str(folder), "--cell", cell]
            options += ["--model.backbone.num_latents", latents, "--trainer.limit_train_batches", "5"]
            fit.main(["--config", DIGITS, "--trainer.max_epochs", "1", *options])
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Made-up runs: a good cell with three seeds, a bad one with two of them."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(3):
        make_run(folder, "good", seed, quality=0.9)
    for seed in range(2):
        make_run(folder, "bad", seed, quality=0.5)
    return folder


def on_other_data(runs: Path, to: Path, name: str) -> Path:
    """A copy of the runs in which one was measured on other bytes, or on other members of a split."""
    shutil.copytree(runs, to)
    path = to / "digits" / "perceiver" / "seed1" / "data.json"
    data = json.loads(path.read_text())
    if name == "fingerprint":
        data["fingerprint"] = "f" * 64
    else:
        data["splits"]["test"]["keys_sha256"] = "f" * 64
    path.write_text(json.dumps(data))
    return to


def test_cells_have_the_mean_of_their_runs_with_an_interval_and_costs(runs, capsys):
    frame = compare.main([str(runs)]).frame()
    assert frame["cell"].tolist() == ["perceiver", "small"]
    for row in frame.to_dict("records"):
        folders = [runs / "digits" / row["cell"] / f"seed{seed}" for seed in (0, 1)]
        results = [json.loads((folder / "results.json").read_text()) for folder in folders]
        values = [r["metrics"]["test"]["top1"] for r in results]
        right = []
        for folder in folders:
            with np.load(folder / "predictions.npz") as kept:
                right.append(kept["predicted"] == kept["target"])
        wanted = of_table(np.array(right, dtype=float))
        found = [row[name] for name in ("top1", "top1_low", "top1_high")]
        assert found == pytest.approx([np.mean(values), wanted.low, wanted.high])
        losses = [r["metrics"]["test"]["loss"] for r in results]  # which samples do not tell
        limits = stats.ttest_1samp(losses, 0).confidence_interval(0.95)
        assert [row["loss_low"], row["loss_high"]] == pytest.approx([limits.low, limits.high])
        assert (row["seeds"], row["parameters"]) == (2, results[0]["parameters"])
        assert row["train_samples_per_second"] == np.mean([r["train_samples_per_second"] for r in results])
        assert row["peak_memory_bytes"] == np.mean([r["peak_memory"]["bytes"] for r in results])
    shown = capsys.readouterr().out
    assert re.search(rf"small .* 2 .* {frame['top1'][1]:.4f} ± \d\.\d{{4}}", shown)
    assert shown.count("run: ") == 4  # the rows of runs are there, too
    assert "Left out" not in shown


def test_differences_pair_equal_seeds_and_equal_samples(many):
    comparison = compare_runs(find_runs([many]), reference="good")
    values, right = {}, {}
    for record in comparison.records:
        values[record.variant[1], record.seed] = record.metrics("test")["top1"]
        right[record.variant[1], record.seed] = record.predictions["predicted"] == record.predictions["target"]
    found = comparison.pairs[0, 1]  # bad - good
    differences = [values["bad", seed] - values["good", seed] for seed in (0, 1)]  # the seeds that both have
    wanted = of_table(np.array([right["bad", seed] * 1.0 - right["good", seed] for seed in (0, 1)]))
    assert (found.mean, found.seeds, found.clusters) == (pytest.approx(np.mean(differences)), 2, 500)
    assert (found.low, found.high) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    assert comparison.pairs[1, 0].low == -found.high
    row = comparison.frame().iloc[0]
    assert (row["reference"], row["difference"], row["difference_high"]) == ("good", found.mean, found.high)
    assert (row["verdict"], row["rank_first"], row["rank_last"]) == ("worse", 2, 2)


def test_clusters_of_samples_are_taken_whole_also_of_runs_that_did_not_record_them(tmp_path):
    for cell, quality in (("a", 0.8), ("b", 0.7)):
        for seed in range(3):
            make_run(tmp_path, cell, seed, quality, cluster_size=20)
    with_all = compare_runs(find_runs([tmp_path])).pairs[0, 1]
    assert (with_all.clusters, with_all.seeds) == (25, 3)
    for path in sorted(tmp_path.rglob("predictions.npz"))[1:]:
        with np.load(path) as file:
            np.savez(path, **{name: array for name, array in dict(file).items() if name != "cluster"})
    assert compare_runs(find_runs([tmp_path])).pairs[0, 1] == with_all
    first = sorted(tmp_path.rglob("predictions.npz"))[0]
    with np.load(first) as file:
        np.savez(first, **{name: array for name, array in dict(file).items() if name != "cluster"})
    assert compare_runs(find_runs([tmp_path])).pairs[0, 1].clusters == 500


def test_without_predictions_of_the_same_samples_intervals_are_over_seeds_alone_and_say_so(many, tmp_path, capsys):
    shutil.copytree(many, tmp_path / "runs")
    path = tmp_path / "runs" / "made_up" / "bad" / "seed0" / "predictions.npz"
    with np.load(path) as file:
        kept = dict(file)
    np.savez(path, **{**kept, "sample": kept["sample"] + 1})
    found = compare_runs(find_runs([tmp_path / "runs"])).pairs[0, 1]
    assert (found.seeds, found.clusters) == (2, 0)
    path.unlink()
    comparison = compare.main([str(tmp_path / "runs")])
    assert comparison.pairs[0, 1].clusters == 0
    assert "not all runs kept predictions of the same samples" in capsys.readouterr().out


def test_one_seed_says_what_cannot_be_known(tmp_path, capsys):
    make_run(tmp_path, "good", 0, quality=0.99)
    make_run(tmp_path, "bad", 0, quality=0.1)
    comparison = compare.main([str(tmp_path)])
    assert {verdict.text for verdict in comparison.verdicts.values()} == {"not separable (one seed)"}
    shown = capsys.readouterr().out
    assert "One seed (bad, good): its interval is of this trained model alone" in shown
    assert "From the best: good = bad" in shown


def test_verdicts_ranks_and_claims_stand_under_the_table_and_in_every_file(many, tmp_path, capsys):
    for seed in range(3):
        make_run(tmp_path / "runs", "best", seed, quality=0.95)
        make_run(tmp_path / "runs", "alike", seed, quality=0.95)
        make_run(tmp_path / "runs", "bad", seed, quality=0.5)
    claims = tmp_path / "claims.txt"
    claims.write_text("best > bad\nbad > alike on top1\nbest > alike\nbest > gone\n")
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    options = ["--reference", "best", "--claims", str(claims), "--csv", str(table), "--html", str(page), "--wide"]
    comparison = compare.main([str(tmp_path / "runs"), *options])
    shown = capsys.readouterr().out
    assert re.search(r"bad .* worse .* 3 ", shown)
    assert re.search(r"From the best: (best = alike|alike = best), bad", shown)
    assert "To separate alike from best: " in shown
    lines = [judged.line for judged in comparison.claims]
    assert [judged.word for judged in comparison.claims] == ["shown", "refuted", "not separable", "not judged"]
    assert all(f"Claim {line}" in shown for line in lines)
    for judged in comparison.claims:
        assert f"{escape(judged.claim.text)}</th><td>{judged.word}</td>" in page.read_text()
    cells, pairs, judged = (pd.read_csv(tmp_path / f"table_{name}.csv") for name in ("cells", "pairs", "claims"))
    assert cells["verdict"].fillna("-").tolist() == ["not separable", "worse", "-"]
    assert pairs[["first", "second", "verdict"]].to_numpy().tolist() == [
        ["alike", "bad", "better"],
        ["alike", "best", "not separable"],
        ["bad", "best", "worse"],
    ]
    assert judged["verdict"].tolist() == ["shown", "refuted", "not separable", "not judged"]
    assert compare.main([str(tmp_path / "runs"), "--claims", "best > bad"]).claims[0].word == "shown"


def test_folds_are_averaged_before_seeds_are(tmp_path):
    for seed in range(2):
        for fold in range(2):
            options = {"data.init_args.fold": fold, "data.init_args.fold_seed": seed}
            splits = {n: {"samples": 500, "keys_sha256": f"{n}{seed}{fold}"} for n in ("train", "val", "test")}
            make_run(
                tmp_path, f"a_fold{fold}", seed, 0.5 + 0.2 * fold + 0.1 * seed, config=options, data={"splits": splits}
            )
    (cell,) = compare_runs(find_runs([tmp_path])).variants
    values = cell.values["top1"]
    assert (cell.label, len(values)) == ("a", 4)
    found = cell.interval("top1")
    assert (found.seeds, found.mean) == (2, pytest.approx(np.mean(list(values.values()))))


def test_the_published_value_of_the_final_version_stands_beside_with_the_gap(tmp_path, capsys):
    published = {"new": {"v1": 76.4, "v2": 78.0}, "first_only": {"v1": 50}, "none": {}}
    for position, (name, values) in enumerate(published.items()):
        suite = {"name": "made_up", "source": "a paper", "position": position, "published": {"top1": values}}
        make_run(tmp_path / "runs", name, 0, results={"suite": suite})
    frame = compare.main([str(tmp_path / "runs"), "--wide"]).frame().set_index("cell")
    assert frame.index.tolist() == ["new", "first_only", "none"]  # the suite's order
    assert frame["published_version"].fillna("-").tolist() == ["v2", "v1", "-"]
    assert frame["gap"]["new"] == pytest.approx(frame["top1"]["new"] - 0.78)
    shown = capsys.readouterr().out
    assert "0.780 (v2)" in shown
    assert "0.500 (v1)" in shown


@pytest.mark.parametrize("name", ["fingerprint", "members"])
def test_runs_on_other_data_are_left_out_and_told_with_their_reason(runs, name, tmp_path, capsys):
    comparison = compare.main([str(on_other_data(runs, tmp_path / "runs", name))])
    assert comparison.frame()["seeds"].tolist() == [1, 2]
    (out,) = comparison.excluded
    assert out.folder.endswith("perceiver/seed1")
    shown = capsys.readouterr().out
    assert "Left out, 1 runs" in shown
    assert out.reasons[0] in shown
    assert "B differs" in shown  # in the rows of runs


def test_unfinished_runs_are_named(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    finished, unfinished = (tmp_path / "runs" / "digits" / "small" / f"seed{seed}" for seed in (0, 1))
    (unfinished / "results.json").unlink()
    for folder in (finished, unfinished):  # W&B copies files that it uploads
        (folder / "wandb" / "files").mkdir(parents=True)
        shutil.copy(folder / "environment.json", folder / "wandb" / "files")
    comparison = compare.main([str(tmp_path / "runs")])
    assert [out.reasons for out in comparison.excluded] == [("not finished: no results.json",)]
    assert "small/seed1: not finished" in capsys.readouterr().out


def test_runs_may_be_named_one_by_one_and_count_once(runs):
    folders = [str(runs / "digits" / "perceiver" / f"seed{seed}") for seed in (1, 0)]
    assert compare.main(folders).frame()["seeds"].tolist() == [2]
    assert len(compare.main([*folders, str(runs)]).records) == 4


def test_csv_has_the_unrounded_runs_and_cells(runs, tmp_path):
    path = tmp_path / "new" / "table.csv"
    comparison = compare.main([str(on_other_data(runs, tmp_path / "runs", "members")), "--csv", str(path)])
    written = pd.read_csv(path)
    assert len(written) == 4
    for row in written.to_dict("records"):
        results = json.loads((Path(row["run"]) / "results.json").read_text())
        metrics = results["metrics"]["test"]
        assert (row["seed"], row["top1"], row["loss"]) == pytest.approx(
            (results["seed"], metrics["top1"], metrics["loss"])
        )
        assert (row["samples"], row["parameters"]) == (300, results["parameters"])
        assert row["flops_per_example"] == results["flops_per_example"]
    assert written["left_out"].notna().sum() == 1
    cells = pd.read_csv(tmp_path / "new" / "table_cells.csv")
    assert cells["top1"].tolist() == pytest.approx(comparison.frame()["top1"].tolist(), rel=1e-14)


def test_markdown_and_latex_are_tables_of_the_same_cells(many, tmp_path):
    markdown, latex = tmp_path / "table.md", tmp_path / "table.tex"
    comparison = compare.main([str(many), "--markdown", str(markdown), "--latex", str(latex)])
    mean = f"{comparison.frame()['top1'][0]:.4f}"
    lines = markdown.read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert f"| bad | 2 | {mean} ± " in table[2]
    assert comparison.summary in markdown.read_text()
    assert f"bad & 2 & {mean} $\\pm$ " in latex.read_text()
    assert latex.read_text().count(r"\\") == 3


def test_val_split_has_its_own_metrics(runs):
    row = compare.main([str(runs / "digits" / "small" / "seed0"), "--split", "val"]).frame().iloc[0]
    results = json.loads((runs / "digits" / "small" / "seed0" / "results.json").read_text())
    assert row["top1"] == results["metrics"]["val"]["top1"]


def test_wandb_gets_tables_images_and_the_page(many, tmp_path, monkeypatch, request):
    import wandb

    request.addfinalizer(wandb.teardown)
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    compare.main([str(many), "--wandb"])
    (offline,) = (tmp_path / "runs" / "compared").glob("wandb/offline-run-*")
    files = [str(path.relative_to(offline / "files" / "media")) for path in offline.glob("files/media/**/*.*")]
    for kind in (
        "table/compare/test_",
        "table/compare/test_runs_",
        "images/compare/test_seeds",
        "html/compare/test_page",
    ):
        assert any(file.startswith(kind) for file in files), (kind, files)
    assert sum(file.startswith("images/") for file in files) == 7  # seeds, training, three costs, two confusions


def test_mistakes_are_named(runs, tmp_path):
    with pytest.raises(UserError, match=r"holds no finished run.*give a run folder"):
        compare.main([str(tmp_path)])
    with pytest.raises(UserError, match="nowhere"):
        compare.main([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="no runs given"):
        compare.main([])
    with pytest.raises(UserError, match="--reference smal: no variant has this name: did you mean small"):
        compare.main([str(runs), "--reference", "smal"])
    with pytest.raises(UserError, match="give ENTITY/PROJECT"):
        compare.main(["--from-wandb", "project"])


def test_a_run_whose_files_are_broken_raises_user_error(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    folder = tmp_path / "runs" / "digits" / "perceiver" / "seed0"
    broken = {
        "data.json": r"data.json is not JSON",
        "config.yaml": r"config.yaml is not valid YAML",
        "predictions.npz": r"predictions.npz cannot be read",
    }
    for name, said in broken.items():
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text("{")
        with pytest.raises(UserError, match=said):
            compare.main([str(tmp_path / "runs")])
        if before is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(before)
    (folder / "data.json").unlink()
    with pytest.raises(UserError, match=r"has no data.json"):
        compare.main([str(tmp_path / "runs")])
