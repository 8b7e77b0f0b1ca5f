"""What must not be compared is caught, on real shards and runs; what may be compared is not."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import src.fit as fit
from datamodules import BadSampleError
from src.report.comparison import compare_runs
from src.report.records import Record
from src.report.rules import Budget, split_runs
from src.runs.folder import Run, find_runs
from tests.support import ROOT
from tests.support.run_folders import make_run
from tests.support.shards import as_of_format_1


def sorted_out(
    *folders: Path, any_budget: bool = False, reference: str | None = None
) -> tuple[list[str], dict[str, str]]:
    """Names of the kept runs, and of the others with their reasons."""
    kept, excluded = split_runs([Record.of(run) for run in find_runs(list(folders))], "test", any_budget, reference)
    return [name_of(record.folder) for record in kept], {
        name_of(out.folder): "; ".join(out.reasons) for out in excluded
    }


def rows(*folders: Path) -> dict[str, list[int]]:
    """The rows of the table with the seeds of their runs."""
    variants = compare_runs(find_runs(list(folders)), any_budget=True).variants
    return {variant.label: [record.seed for record in variant.records] for variant in variants}


def name_of(folder: str) -> str:
    return "/".join(Path(folder).parts[-2:])


@pytest.fixture(scope="module")
def furniture(tiny) -> Path:
    """Real tar shards."""
    return tiny.folder("furniture")


def train(data: Path, runs: Path, cell: str, *more: str) -> Path:
    """A run of two steps."""
    options = ["--data.data_dir", str(data), "--data.batch_size", "2", "--runs_dir", str(runs), "--cell", cell]
    options += ["--trainer.max_epochs", "1", "--trainer.max_steps", "2", "--trainer.enable_checkpointing", "false"]
    small = ["--model.backbone.num_latents", "4", "--model.backbone.latent_dim", "8", "--data.points", "64"]
    fit.main(["--config", str(ROOT / "configs" / "furniture_perceiver.yaml"), *options, *small, *more])
    return runs / "furniture" / cell


@pytest.fixture(scope="module")
def reference(furniture, tmp_path_factory) -> Path:
    return train(furniture, tmp_path_factory.mktemp("runs"), "reference")


def test_an_equal_pair_is_compared_also_from_another_folder_and_with_other_workers(reference, furniture, tmp_path):
    shutil.copytree(furniture, tmp_path / "copy")
    equal = train(tmp_path / "copy", tmp_path / "runs", "equal", "--data.num_workers", "1")
    assert sorted_out(reference, equal) == (["equal/seed0", "reference/seed0"], {})


def test_one_byte_of_a_shard_is_caught(reference, furniture, tmp_path):
    shutil.copytree(furniture, tmp_path / "copy")
    shard = sorted((tmp_path / "copy").glob("*.tar"))[0]
    content = bytearray(shard.read_bytes())
    place = content.rfind(b"\x93NUMPY") + 1000  # in the points of a shape
    content[place] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(BadSampleError, match="CRC-32"):
        train(tmp_path / "copy", tmp_path / "runs", "damaged")
    as_of_format_1(tmp_path / "copy")  # which has no checksums
    kept, out = sorted_out(reference, train(tmp_path / "copy", tmp_path / "runs", "other"), reference="reference")
    assert kept == ["reference/seed0"]
    assert "data: bytes with fingerprint" in out["other/seed0"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.fold_seed", "1"], "split: other members"),
        (["--data.fold", "1"], "folds: seed 0 has 1, not 0"),
        (["--trainer.max_steps", "3"], "budget: 6 training samples, not 4"),
        (["--data.batch_size", "4"], "budget: 8 training samples, not 4"),
        (["--trainer.limit_test_batches", "1"], "test samples measured: 2, not 7"),
    ],
)
def test_another_split_budget_and_sample_count_is_caught(reference, furniture, tmp_path, options, said):
    kept, out = sorted_out(reference, train(furniture, tmp_path, "other", *options), reference="reference")
    assert kept == ["reference/seed0"]
    assert said in out["other/seed0"]


def test_the_budget_counts_batches_times_accumulation(reference, furniture, tmp_path):
    equal = train(furniture, tmp_path, "equal", "--data.batch_size", "1", "--trainer.accumulate_grad_batches", "2")
    assert sorted_out(reference, equal)[1] == {}


def test_other_batches_may_leave_out_other_samples_at_the_end_of_epochs_and_no_more(tmp_path):
    make_run(tmp_path, "a", 0, config={"data.init_args.batch_size": 64}, steps=18 * 5, results={"epochs": 5})
    make_run(tmp_path, "b", 0, config={"data.init_args.batch_size": 32}, steps=37 * 5, results={"epochs": 5})
    assert sorted_out(tmp_path)[1] == {}  # 1,197 samples, as steps of 64 and of 32
    make_run(tmp_path, "c", 0, config={"data.init_args.batch_size": 32}, steps=190, results={"epochs": 5})
    assert sorted_out(tmp_path)[1] == {"c/seed0": "budget: 6,080 training samples, not 5,760 training samples"}


def test_the_budget_is_in_samples_and_that_of_a_probe_is_what_it_read(tmp_path):
    trained = make_run(tmp_path, "a", 0, steps=10, config={"trainer.accumulate_grad_batches": None})
    probe = make_run(tmp_path, "b", 0, steps=0, results={"epochs": 2})
    assert [Budget.of(Record.of(Run(folder))).samples for folder in (trained, probe)] == [10 * 64, 2 * 500]


def test_other_members_of_a_split_are_caught_whatever_the_seed(tmp_path):
    make_run(tmp_path, "a", 0)
    others = {name: {"samples": 500, "keys_sha256": "other"} for name in ("train", "val", "test")}
    make_run(tmp_path, "b", 1, data={"splits": others})
    assert "test split: other members" in sorted_out(tmp_path)[1]["b/seed1"]


@pytest.mark.parametrize(("samples", "equal"), [(640 - 32, True), (640 - 64, False)])
def test_runs_that_ended_in_their_first_epoch_may_differ_by_less_than_a_step(samples, equal):
    assert Budget(640, 64, 0, None).equals(Budget(samples, 32, 0, None), same_samples=True) == equal


def test_any_budget_lets_cells_differ_but_not_the_seeds_of_one(tmp_path):
    make_run(tmp_path, "a", 0, steps=100)
    make_run(tmp_path, "b", 0, steps=200)
    assert sorted_out(tmp_path, any_budget=True)[1] == {}
    make_run(tmp_path, "b", 1, steps=300)
    assert rows(tmp_path) == {"a": [0], "b": [0], "b (max_steps 300)": [1]}


def test_runs_that_their_time_ended_have_that_time_as_budget(tmp_path):
    limited = {"trainer.max_time": "00:01:00:00", "trainer.max_steps": -1, "trainer.max_epochs": None}
    make_run(tmp_path, "a", 0, steps=100, config=limited)
    make_run(tmp_path, "c", 0, steps=100)
    make_run(tmp_path, "b", 0, steps=700, config=limited)
    assert sorted_out(tmp_path)[1].keys() == {"c/seed0"}
    path = tmp_path / "made_up" / "b" / "seed0" / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "gpus": ["H100"]}))
    assert "on H100" in sorted_out(tmp_path)[1]["b/seed0"]
    for cell, ended in (("d", {"trainer.max_steps": 100}), ("e", {"trainer.max_epochs": 1})):
        assert Budget.of(Record.of(Run(make_run(tmp_path, cell, 0, steps=100, config=limited | ended)))).time is None


def test_another_metric_definition_is_caught_and_an_older_run_without_one_is_not(tmp_path):
    for cell, definition in (("a", "one"), ("b", "one"), ("c", "two"), ("d", None)):
        make_run(tmp_path, cell, 0, results={"metric_definition": definition} if definition else None)
    assert sorted_out(tmp_path)[1] == {"c/seed0": "metric: two, not one"}


def test_the_reference_decides_what_is_compared_however_few_agree_with_it(tmp_path):
    make_run(tmp_path, "a", 0, data={"fingerprint": "b" * 64})
    for cell in ("b", "c", "d"):
        make_run(tmp_path, cell, 0)
    assert sorted_out(tmp_path)[0] == ["a/seed0"]
    kept, out = sorted_out(tmp_path, reference="c")
    assert (sorted(kept), list(out)) == (["b/seed0", "c/seed0", "d/seed0"], ["a/seed0"])


def test_a_suite_names_its_first_variant_and_order(tmp_path):
    for position, cell in enumerate(("z", "a")):
        suite = {"name": "s", "source": "none", "position": position, "published": {}}
        make_run(tmp_path, cell, 0, results={"suite": suite}, data={"fingerprint": cell * 64})
    assert sorted_out(tmp_path)[0] == ["z/seed0"]


def test_seeds_of_a_variant_with_other_options_are_a_row_of_their_own_and_what_is_made_of_the_seed_is_none(tmp_path):
    for seed in range(3):
        root = tmp_path / f"runs{seed}"
        weights = {"model.init_args.weights": f"{root}/half/seed{seed}", "data.init_args.mask_seed": seed}
        where = {"data.init_args.num_workers": seed, "trainer.devices": seed, "trainer.enable_checkpointing": seed > 1}
        make_run(root, "a", seed, config=weights | where | {"trainer.log_every_n_steps": seed + 1})
    assert rows(tmp_path) == {"a": [0, 1, 2]}
    for seed in (3, 4, 5):
        make_run(root, "a", seed, config={**weights, "data.init_args.mask_seed": 3, "model.init_args.lr": 0.1})
    assert rows(tmp_path) == {"a": [0, 1, 2], "a (lr 0.1 and 1 more)": [3, 4, 5]}
    assert sorted_out(tmp_path)[1] == {}


def test_rows_need_equal_batches_even_where_they_trained_on_as_many_samples(tmp_path):
    make_run(tmp_path, "a", 0, steps=120, config={"data.init_args.batch_size": 64})
    make_run(tmp_path, "a", 1, steps=240, config={"data.init_args.batch_size": 32})
    assert list(rows(tmp_path)) == ["a", "a (batch_size 32 and 1 more)"]


def test_options_of_another_class_are_not_told(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "a", seed)
    make_run(tmp_path, "a", 2, config={"model.class_path": "src.tasks.LinearProbe", "model.init_args.lr": 0.5})
    assert list(rows(tmp_path)) == ["a", "a (class_path src.tasks.LinearProbe)"]


def test_an_option_that_happens_to_equal_the_seed_is_a_difference(tmp_path):
    for seed in (1, 2):
        make_run(tmp_path, "a", seed, config={"model.init_args.depth": seed})
    assert list(rows(tmp_path)) == ["a", "a (depth 2)"]


def test_an_option_that_one_seed_alone_has_is_a_difference(tmp_path):
    make_run(tmp_path, "a", 0)
    make_run(tmp_path, "a", 1, config={"model.init_args.dropout": 0.1})
    assert list(rows(tmp_path)) == ["a", "a (dropout 0.1)"]


def test_equal_names_of_two_experiments_are_told_apart(tmp_path):
    for experiment in ("one", "two"):
        make_run(tmp_path, "a", 0, experiment=experiment)
    assert rows(tmp_path) == {"one/a": [0], "two/a": [0]}


def test_a_run_of_another_cell_is_shown_with_all_that_differs_but_the_model(tmp_path):
    make_run(tmp_path, "a", 0)
    make_run(tmp_path, "a", 1)
    config = {"model.init_args.lr": 0.5, "data.init_args.sides": 3}
    make_run(tmp_path, "b", 0, config=config, data={"fingerprint": "b" * 64})
    _, (out,) = split_runs([Record.of(run) for run in find_runs([tmp_path])], "test")
    assert out.changes == {"data.init_args.sides": (3, "(absent)")}


def test_an_older_run_of_the_same_seed_does_not_count_twice(tmp_path):
    folder = make_run(tmp_path, "a", 0)
    shutil.copytree(folder, folder.with_name("seed0.1"))
    kept, out = sorted_out(tmp_path)
    assert kept == ["a/seed0"]
    assert "seed 0 again" in out["a/seed0.1"]


def folds(root: Path, cell: str, seeds: range, count: int) -> None:
    for seed in seeds:
        for fold in range(count):
            members = {n: {"samples": 500, "keys_sha256": f"{n}{seed}{fold}"} for n in ("train", "val", "test")}
            options = {"data.init_args.fold": fold, "data.init_args.fold_seed": seed}
            make_run(root, f"{cell}_fold{fold}", seed, config=options, data={"splits": members})


def test_folds_that_every_seed_deals_anew_are_compared_fold_by_fold(tmp_path):
    folds(tmp_path, "a", range(2), 3)
    folds(tmp_path, "b", range(2), 3)
    kept, out = sorted_out(tmp_path)
    assert (len(kept), out) == (12, {})
    path = tmp_path / "made_up" / "b_fold1" / "seed1" / "data.json"
    data = json.loads(path.read_text())
    data["splits"]["test"]["keys_sha256"] = "other"
    path.write_text(json.dumps(data))
    kept, out = sorted_out(tmp_path)
    assert "test split: other members" in out["b_fold1/seed1"]
    assert "folds: seed 1 has 0, 2, not 0, 1, 2" in out["b_fold0/seed1"]  # its mean would lack a fold
    assert len(kept) == 9


@pytest.mark.parametrize(("steps", "kept"), [(90, 2), (95, 2), (96, 1)])
def test_folds_may_differ_by_one_step_in_an_epoch(tmp_path, steps, kept):
    for fold, count in ((0, 90), (1, steps)):
        members = {name: {"samples": 500, "keys_sha256": f"{name}{fold}"} for name in ("train", "val", "test")}
        options = {"data.init_args.fold": fold, "data.init_args.fold_seed": 0, "trainer.max_steps": -1}
        results = {"steps": count, "epochs": 5}
        make_run(tmp_path, f"a_fold{fold}", 0, config=options, data={"splits": members}, results=results)
    assert len(sorted_out(tmp_path)[0]) == kept


def test_configs_are_read_as_they_were_written(tmp_path):
    folder = make_run(tmp_path, "a", 0)
    assert Record.of(Run(folder)).config["data.init_args.batch_size"] == 64
    (folder / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 3}}))
    assert Record.of(Run(folder)).config == {"trainer.max_epochs": 3}
