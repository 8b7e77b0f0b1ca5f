"""Suites as protocols: what is held equal, what a suite builds on, and what is frozen before the test split is read."""

import json
from pathlib import Path

import pytest
import yaml

from datamodules import UserError
from src import suite
from src.api import evaluate, fit
from src.compare import main as compare
from src.runs.folder import Run
from src.suites.definition import load_suite
from src.suites.protocol import freeze, frozen_entry
from tests.support import ROOT
from tests.support.run_folders import make_run

SMALL = {"name": "small", "config": "digits_perceiver"}
WIDE = {"name": "wide", "config": "digits_perceiver", "overrides": {"model.backbone.latent_dim": 128}}
GOOD = {"source": "none", "variants": [SMALL, WIDE]}


@pytest.fixture
def suites(tmp_path) -> Path:
    folder = tmp_path / "configs" / "suites"
    folder.mkdir(parents=True)
    (tmp_path / "configs" / "digits_perceiver.yaml").write_text(
        (ROOT / "configs" / "digits_perceiver.yaml").read_text()
    )
    return folder


def write(suites: Path, content: dict, name: str = "tiny") -> Path:
    path = suites / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"equal": "sample"}, "equal 'sample' is not known: did you mean samples"),
        ({"equal": ["samples"]}, r"equal \['samples'\] is not known"),
        ({"equal": "flops"}, "equal flops needs max_flops in the budget"),
        ({"equal": "time", "budget": {"max_epochs": 2}}, "equal time needs max_time in the budget"),
        ({"equal": "samples", "budget": {"max_flops": 1e9}}, "equal samples does not go with budget"),
        ({"reference": "smal"}, "no variant is called 'smal', as its reference: did you mean small"),
        ({"claims": "wide > small"}, "claims should be a list of texts"),
        ({"claims": ["wide beats small"]}, "claim 'wide beats small': write `A > B`"),
        ({"baseline": [3]}, "baseline .* should be methods of src.tasks.Trivial"),
        ({"inherit": "../tiny"}, "inherit '../tiny' should be the name of a suite beside this one"),
        ({"inherit": "tiny"}, "leads back to tiny.yaml"),
        ({"inherit": "tin"}, "there is no suite .*tin.yaml: did you mean tiny.yaml"),
        ({"space": {"lr": [1, 2]}}, "'lr' is no option that a suite changes"),
        ({"space": {"model.dropout": [0.1]}}, "should be a list of two or more plain values"),
        ({"space": {"model.dropout": {"low": 0.5, "high": 0.1}}}, "low should be below high"),
        ({"space": {"model.dropout": {"low": 0, "high": 0.1, "log": True}}}, "above 0 on a logarithmic scale"),
        ({"variants": [SMALL, WIDE | {"space": {"model.dropout": [0, 1]}}]}, "wide would search 2 choices, small nothing"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_file(suites, change, says):
    with pytest.raises(UserError, match=says) as error:
        load_suite(write(suites, GOOD | change))
    assert "tiny.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_budget_says_what_is_equal_unless_the_suite_says_published(suites):
    budgets = {"samples": {}, "time": {"max_time": "00:00:01:00"}, "flops": {"max_flops": 1e9}}
    for equal, budget in budgets.items():
        assert load_suite(write(suites, GOOD | {"budget": budget})).equal == equal
    assert load_suite(write(suites, GOOD | {"equal": "published"})).equal == "published"


def test_an_heir_keeps_what_it_does_not_change(suites):
    base = GOOD | {"seeds": [0, 1], "budget": {"max_epochs": 3}, "claims": ["wide > small"]}
    write(suites, base, "base")
    narrow = SMALL | {"name": "narrow", "overrides": {"model.backbone.latent_dim": 32}}
    heir = {"inherit": "base", "seeds": [5], "variants": [narrow, WIDE | {"overrides": {}}], "claims": None}
    found = load_suite(write(suites, heir))
    assert (found.name, found.source, found.seeds, found.budget) == ("tiny", "none", (5,), {"max_epochs": 3})
    assert [variant.name for variant in found.variants] == ["small", "wide", "narrow"]
    assert found.variants[1].overrides == {}
    assert found.claims == ()


def test_an_added_backbone_is_in_every_combination_and_trains_in_the_config_of_the_first_model(suites):
    orders = {"": {}, "fixed": {"overrides": {"data.permutation": "fixed"}}}
    models = {"a": {"config": "digits_perceiver", "overrides": {"model.backbone.num_latents": 8}}}
    path = write(suites, {"source": "none", "matrix": {"order": orders, "model": models}})
    added = load_suite(path, ["my_package.MeanPool"])
    assert [variant.name for variant in added.variants] == ["a", "fixed_a", "mean_pool", "fixed_mean_pool"]
    backbone = {"class_path": "my_package.MeanPool"}
    assert added.variants[3].overrides == {"data.permutation": "fixed", "model.backbone": backbone}
    assert added.variants[3].config == added.variants[0].config
    with pytest.raises(UserError, match="has no axis `model`"):
        load_suite(write(suites, GOOD), ["my_package.MeanPool"])


def test_baselines_are_variants_on_the_data_of_the_first_one_in_every_fold(suites):
    first = SMALL | {"overrides": {"data.bands": 2, "model.dropout": 0.1}}
    found = load_suite(write(suites, {"source": "none", "folds": 2, "variants": [first], "baseline": "majority"}))
    assert [v.name for v in found.variants[2:]] == ["trivial_majority_fold0", "trivial_majority_fold1"]
    model = {"class_path": "src.tasks.Trivial", "init_args": {"method": "majority"}}
    assert found.variants[2].overrides == {"data.bands": 2, "model": model, "data.fold": 0}


def test_claims_and_choices_can_change_until_the_test_split_is_read_and_variants_can_be_added_after(suites, tmp_path):
    runs = tmp_path / "runs" / "tiny"
    freeze(load_suite(write(suites, GOOD | {"claims": ["wide > small"]})), runs)
    first = frozen_entry(runs, "wide")
    freeze(load_suite(write(suites, GOOD | {"claims": ["small > wide"]})), runs)
    second = frozen_entry(runs, "wide")
    assert first is not None
    assert second is not None
    assert second.claims == ["small > wide"]
    assert first.frozen != second.frozen
    make_run(tmp_path / "runs", "small", 0, experiment="tiny")
    for change, what in (
        ({"claims": ["wide > small"]}, "claims changed after"),
        ({"seeds": [0, 1], "claims": ["small > wide"]}, "seeds changed after"),
        (
            {"variants": [SMALL, WIDE | {"overrides": {}}], "claims": ["small > wide"]},
            "the choices for wide changed after",
        ),
    ):
        with pytest.raises(UserError, match=what):
            freeze(load_suite(write(suites, GOOD | change)), runs)
    more = [SMALL, WIDE, SMALL | {"name": "third"}]
    freeze(load_suite(write(suites, GOOD | {"claims": ["small > wide"], "variants": more})), runs)
    assert frozen_entry(runs, "wide") == second
    third = frozen_entry(runs, "third")
    assert third is not None
    assert third.frozen not in (None, second.frozen)


def test_a_broken_frozen_file_is_told(suites, tmp_path):
    loaded, runs = load_suite(write(suites, GOOD)), tmp_path / "runs" / "tiny"
    freeze(loaded, runs)
    for text in ("[]", '{"fixed": {}, "variants": {"small": 3}}', "{"):
        (runs / "frozen.json").write_text(text)
        with pytest.raises(UserError, match=r"frozen\.json"):
            frozen_entry(runs, "small")


@pytest.mark.integration
def test_equal_operations_through_a_suite_with_a_baseline_end_with_one_table(suites, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = GOOD | {"budget": {"max_flops": 4e10}, "baseline": ["majority"], "reference": "wide"}
    content["claims"] = ["wide > trivial_majority on top1"]
    runs = suite.main([str(write(suites, content)), "--runs_dir", str(tmp_path / "runs")])
    results = {run.folder.parent.name: run.results() for run in runs}
    for name in ("small", "wide"):
        step = 3 * results[name].flops_per_example * 64
        assert results[name].steps == 4e10 // step > 1
    assert results["wide"].steps < results["small"].steps
    assert results["trivial_majority"].steps == 1
    said = capfd.readouterr().out
    assert "4e+10 FLOPs of training" in said
    assert said.count("trivial_majority") >= 2
    assert "Left out" not in said
    for run in runs:
        entry = run.results().suite
        assert entry is not None
        assert entry.claims == content["claims"]
        assert entry.frozen == run.read("environment.json")["frozen"] is not None
    comparison = compare([str(tmp_path / "runs")])
    assert comparison.variants[comparison.reference].label == "wide"
    with pytest.raises(UserError, match=r"--max_flops 100 is no budget: a step of this model needs"):
        fit(suites.parent / "digits_perceiver.yaml", options={"max_flops": 100, "runs_dir": str(tmp_path)})


def test_the_table_of_a_suite_with_published_budgets_shows_all_its_variants_and_says_so(tmp_path, capsys):
    table = load_suite(ROOT / "configs" / "suites" / "perceiver_table1.yaml")
    freeze(table, tmp_path / table.name)
    for number, variant in enumerate(table.variants):
        entry = frozen_entry(tmp_path / table.name, variant.name)
        assert entry is not None
        make_run(
            tmp_path,
            variant.name,
            seed=0,
            quality=0.6 + 0.05 * number,
            experiment=table.name,
            steps=100 * (number + 1),
            results={"suite": json.loads(json.dumps(entry.__dict__))},
        )
    comparison = compare([str(tmp_path)])
    assert [variant.label for variant in comparison.variants] == [variant.name for variant in table.variants]
    assert comparison.excluded == []
    assert "equal: published" in capsys.readouterr().out


def test_a_run_that_left_the_test_split_out_is_not_evaluated_on_it(tmp_path):
    run = fit("digits_perceiver", options={"test": False, "trainer.max_epochs": 1, "runs_dir": str(tmp_path)})
    assert set(run.results().metrics["val"]) >= {"top1"}
    assert run.results().metrics["test"] == {}
    assert not list(run.folder.glob("predictions*"))
    with pytest.raises(UserError, match="is a trial of tuning"):
        evaluate(Run(run.folder))
    assert evaluate(run, split="val")["samples"] == run.results().metrics["val"]["samples"]
