"""Suites: mistakes in their files are reported in one line, and the runner continues where it was stopped."""

import json
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import ray
import torch
import yaml

from datamodules import UserError
from src import suite
from src.runs.lock import owned
from src.suites import definition
from src.suites.definition import expand_variant, load_suite
from tests.support import SUITES

ROOT = Path(__file__).parent.parent
SMALL = {"name": "small", "config": "digits_perceiver"}
GOOD = {"source": "none", "variants": [SMALL]}
MATRIX = {"model": {"a": {"config": "digits_perceiver"}}}


@pytest.fixture
def configs(tmp_path) -> Path:
    """A folder of one config, and of suites."""
    (tmp_path / "configs" / "suites").mkdir(parents=True)
    config = (ROOT / "configs" / "digits_perceiver.yaml").read_text()
    (tmp_path / "configs" / "digits_perceiver.yaml").write_text(config)
    return tmp_path / "configs"


def write(configs: Path, content: object) -> Path:
    path = configs / "suites" / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variants": []}, "has no variants"),
        ({"variants": "small"}, "variants should be a list"),
        ({"variant": []}, "has the unknown key 'variant': did you mean variants"),
        ({"seeds": 3}, r"seeds 3 should be a list of whole numbers, such as \[0, 1, 2\]"),
        ({"folds": "five"}, "folds 'five' should be a whole number above 0"),
        ({"budget": {"epochs": 3}}, "budget has the unknown key 'epochs': did you mean max_epochs"),
        ({"variants": [{"name": "a"}]}, "variant 1 lacks config"),
        ({"variants": [{"name": "a", "config": "digit_perceiver"}]}, "variant a: there is no config .*did you mean digits"),
        ({"config": "digit_perceiver", "variants": [{"name": "a"}]}, "variant a: there is no config .*did you mean digits"),
        ({"variants": [SMALL, SMALL]}, "two variants are called small"),
        ({"variants": [SMALL | {"overrides": [1]}]}, "variant small: overrides .* should map options to values"),
        ({"variants": [SMALL | {"published": {"top1": 5}}]}, "variant small, top1: expected the keys v1, v2, found 5"),
        ({"variants": [SMALL | {"published": {"top1": {"v3": 5}}}]}, "unknown key 'v3'"),
        ({"variants": [SMALL | {"published": {"top1": {"v1": "good"}}}]}, "should be numbers"),
        ({"variants": [SMALL | {"after": "smal"}]}, "variant small: no variant before it is called 'smal'"),
        ({"matrix": ["a"]}, "matrix should map axes to short names"),
        ({"matrix": {"model": {"a": {"confg": "x"}}}}, "matrix, model 'a' has the unknown key 'confg': did you mean config"),
        ({"matrix": {"model": {"a": {"overrides": 3}}}}, "matrix, model 'a': overrides 3 should map options to values"),
        ({"matrix": MATRIX, "published": {"b": {}}}, "published has the unknown key 'b'"),
        ({"matrix": {"model": {"small": SMALL | {"name": None}}}}, "matrix, model 'small' has the unknown key 'name'"),
        ({"source": None}, "lacks source"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_file(configs, change, says):
    content = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(UserError, match=says) as error:
        load_suite(write(configs, content))
    assert "tiny.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_broken_file_is_named(configs):
    path = write(configs, GOOD)
    with pytest.raises(UserError, match=r"there is no suite .*tinny\.yaml: did you mean tiny\.yaml"):
        load_suite(path.with_name("tinny.yaml"))
    path.write_text("variants: [")
    with pytest.raises(UserError, match=r"tiny\.yaml is not valid YAML"):
        load_suite(path)
    path.write_text("nothing")
    with pytest.raises(UserError, match=r"tiny\.yaml: expected the keys source, seeds"):
        load_suite(path)


def test_a_matrix_is_the_product_of_its_axes_and_lists_follow_it(configs):
    orders = {"": {}, "fixed": {"overrides": {"data.permutation": "fixed"}}}
    models = {"a": {"config": "digits_perceiver"}, "b": {"config": "digits_perceiver", "overrides": {"data.bands": 2}}}
    published = {"fixed_b": {"top1": {"v1": 5}}}
    matrix = {"matrix": {"order": orders, "model": models}, "published": published}
    variants = load_suite(write(configs, GOOD | matrix)).variants
    assert [variant.name for variant in variants] == ["a", "fixed_a", "b", "fixed_b", "small"]
    assert [variant.published for variant in variants] == [{}, {}, {}, published["fixed_b"], {}]
    assert variants[0].overrides == {}
    assert variants[3].overrides == {"data.permutation": "fixed", "data.bands": 2}


def test_folds_repeat_every_variant_and_what_it_reads(configs):
    content = GOOD | {"folds": 2, "variants": [SMALL, {**SMALL, "name": "probe", "after": "small"}]}
    suite = load_suite(write(configs, content))
    assert [v.name for v in suite.variants] == ["small_fold0", "small_fold1", "probe_fold0", "probe_fold1"]
    assert [v.overrides for v in suite.variants[:2]] == [{"data.fold": 0}, {"data.fold": 1}]
    assert [v.after for v in suite.variants[2:]] == ["small_fold0", "small_fold1"]


def test_a_variant_expands_to_its_options_and_those_given_follow(configs, monkeypatch):
    overrides = {"model.weights": "{runs_dir}/tiny/a/seed{seed}"}
    path = write(
        configs, GOOD | {"seeds": [4, 5], "budget": {"max_epochs": 2}, "variants": [SMALL | {"overrides": overrides}]}
    )
    monkeypatch.setattr(definition, "SUITES", path.parent)
    loaded = load_suite(path)
    wanted = loaded.options(loaded.variants[0], 4, Path("runs"))
    assert expand_variant(["--variant", "tiny/small"]) == wanted
    assert expand_variant(["--trainer.max_epochs", "3", "--variant=tiny/small"]) == [
        *wanted,
        "--trainer.max_epochs",
        "3",
    ]
    given = ["--variant", "tiny/small", "--seed_everything", "7", "--runs_dir", "there"]
    assert expand_variant(given) == loaded.options(loaded.variants[0], 7, Path("there"))
    assert expand_variant(["--config", "some.yaml"]) == ["--config", "some.yaml"]


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("perceiver_ablation/cross1", "there is no suite 'perceiver_ablation' .*did you mean perceiver_ablations"),
        ("perceiver_ablations/cros1", "suite perceiver_ablations has no variant 'cros1': did you mean cross1"),
        ("cross1", "--variant cross1: expected SUITE/NAME, such as perceiver_ablations/cross8_start"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_name_of_a_variant_is_one_line_with_the_nearest_name(variant, says):
    with pytest.raises(UserError, match=says) as error:
        expand_variant(["--variant", variant])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_listed_command_expands_to_the_options_of_its_variant(path, capsys):
    assert suite.main([str(path), "--list"]) == []
    loaded = load_suite(path)
    expanded = [expand_variant(line.split()[3:]) for line in capsys.readouterr().out.splitlines()]
    assert expanded == [loaded.options(variant, loaded.seeds[0], Path("runs")) for variant in loaded.variants]


def test_commands_of_a_suite_that_lies_elsewhere_name_its_path(configs, capsys):
    path = write(configs, GOOD)
    suite.main([str(path), "--list"])
    loaded = load_suite(path)
    listed = capsys.readouterr().out.split()[3:]
    assert expand_variant(listed) == loaded.options(loaded.variants[0], 0, Path("runs"))


def test_overrides_and_budget_become_options_with_seed_and_place_of_the_run(configs):
    overrides = {"data.bands": 2, "model.weights": "{runs_dir}/tiny/a/seed{seed}", "model.backbone.cross_weights": None}
    content = GOOD | {"budget": {"max_time": "00:00:10:00"}, "variants": [SMALL | {"overrides": overrides}]}
    loaded = load_suite(write(configs, content))
    options = loaded.options(loaded.variants[0], 2, Path("there"))
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {
        "--config": str(configs / "digits_perceiver.yaml"),
        "--runs_dir": "there",
        "--experiment": "tiny",
        "--suite": str(configs / "suites" / "tiny.yaml"),
        "--cell": "small",
        "--seed_everything": "2",
        "--trainer.max_time": "00:00:10:00",
        "--data.bands": "2",
        "--model.weights": "there/tiny/a/seed2",
        "--model.backbone.cross_weights": "null",
    }


@pytest.mark.integration
def test_the_runner_skips_what_is_finished_goes_on_after_what_breaks_and_says_so(configs, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    forkserver._forkserver._stop()  # one that another test began writes into that test's capture
    broken = {"name": "broken", "config": "digits_perceiver", "overrides": {"data.band": 2}}
    path = write(configs, GOOD | {"budget": {"max_epochs": 1}, "variants": [broken, *GOOD["variants"]]})
    runs = tmp_path / "runs"
    with pytest.raises(SystemExit) as stopped:
        suite.main([str(path), "--runs_dir", str(runs), "--seeds", "5"])
    assert stopped.value.code == 1
    said = capfd.readouterr().err
    assert "1 of 2 runs failed:\ntiny: broken, seed 5: python -m src.fit --config" in said
    assert "has no option 'band': did you mean bands?" in said
    results = runs / "tiny" / "small" / "seed5" / "results.json"
    assert json.loads(results.read_text())["epochs"] == 1
    written = results.stat().st_mtime_ns
    [run] = suite.main([str(path), "--runs_dir", str(runs), "--seeds", "5", "--variants", "small"])
    assert run.folder == results.parent
    assert results.stat().st_mtime_ns == written
    write(configs, GOOD | {"budget": {"max_epochs": 2}})
    with pytest.raises(
        UserError, match=r"small/seed5 finished with trainer.max_epochs 1, this is 2: move the run away"
    ):
        suite.main([str(path), "--runs_dir", str(runs), "--seeds", "5"])
    assert results.stat().st_mtime_ns == written


@pytest.mark.integration
def test_runs_of_a_warm_suite_have_the_bits_of_runs_alone(configs, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    variants = [{"name": name, "config": "digits_perceiver"} for name in ("first", "second")]
    path = write(configs, GOOD | {"budget": {"max_epochs": 1}, "variants": variants})
    warm = suite.main([str(path), "--runs_dir", str(tmp_path / "warm")])
    loaded = load_suite(path)
    for run, variant in zip(warm, loaded.variants, strict=True):
        options = loaded.options(variant, 0, tmp_path / "alone")
        subprocess.run([sys.executable, "-m", "src.fit", *options], check=True, capture_output=True)
        alone = tmp_path / "alone" / "tiny" / variant.name / "seed0"
        assert (alone / "predictions.npz").read_bytes() == (run.folder / "predictions.npz").read_bytes()
        warm_state, alone_state = (
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
            for folder in (run.folder, alone)
        )
        assert warm_state.keys() == alone_state.keys()
        assert all(torch.equal(warm_state[name], alone_state[name]) for name in warm_state)


def test_a_suite_that_another_process_runs_is_left_alone(configs, tmp_path):
    path = write(configs, GOOD)
    with (
        owned(tmp_path / "runs" / "tiny", ""),
        pytest.raises(UserError, match=r"runs/tiny is in use by .*: wait for it"),
    ):
        suite.main([str(path), "--runs_dir", str(tmp_path / "runs")])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == []


def test_an_unknown_variant_is_named(configs):
    with pytest.raises(UserError, match=r"suite tiny has no variant 'smal': did you mean small"):
        suite.main([str(write(configs, GOOD)), "--variants", "smal"])


@pytest.mark.integration
def test_variants_that_read_others_come_after_them_and_several_run_at_a_time(configs, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    variants = [{"name": name, "config": "digits_perceiver"} for name in ("first", "alone", "last")]
    variants[2]["after"] = "first"
    path = write(configs, GOOD | {"budget": {"max_steps": 2}, "variants": variants})
    assert [[variant.name for variant in wave] for wave in load_suite(path).waves()] == [["first", "alone"], ["last"]]
    runs = suite.main([str(path), "--runs_dir", str(tmp_path / "runs"), "--jobs", "2"])
    assert [run.folder.parent.name for run in runs] == ["first", "alone", "last"]
    began = {run.folder.parent.name: (run.folder / "config.yaml").stat().st_mtime for run in runs}
    assert began["last"] > (runs[0].folder / "results.json").stat().st_mtime
    said = capfd.readouterr().out
    assert "2/2  tiny: " in said
    assert "1/1  tiny: last, seed 0: done, 0:00 left" in said


@pytest.mark.integration
def test_a_suite_on_ray_keeps_logs_and_goes_on_where_it_was(configs, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    broken = {"name": "broken", "config": "digits_perceiver", "overrides": {"data.band": 2}}
    path = write(configs, GOOD | {"budget": {"max_steps": 2}, "variants": [broken, *GOOD["variants"]]})
    options = [str(path), "--runs_dir", str(tmp_path / "runs"), "--on", "ray"]
    try:
        with pytest.raises(SystemExit):
            suite.main(options)
        said = capfd.readouterr()
        assert "tiny: broken, seed 0: failed, see " in said.out
        assert "1 of 2 runs failed:\ntiny: broken, seed 0: python -m src.fit" in said.err
        log = tmp_path / "runs" / "tiny" / "broken" / "seed0.log"
        assert "has no option 'band': did you mean bands?" in log.read_text()
        [run] = suite.main([*options, "--variants", "small"])  # finished: Ray has nothing to do
        assert json.loads((run.folder / "results.json").read_text())["steps"] == 2
    finally:
        ray.shutdown()


SBATCH = """#!/bin/sh
# as SLURM's: takes the options, runs the script once for every number of the array, tells the job's id
for word in "$@"; do
    case "$word" in
        --array=*) numbers=$(echo "${word#--array=}" | tr , " ") ;;
        --*) ;;
        *) break ;;
    esac
    echo "$word" >> "$LOG"
    shift
done
for number in $numbers; do SLURM_ARRAY_TASK_ID=$number SLURM_JOB_ID=7$number bash "$@" >&2; done
echo "7;cluster"
"""


@pytest.mark.integration
def test_a_suite_under_slurm_is_an_array_for_each_wave_and_each_job_one_run(configs, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    programs = {"sbatch": SBATCH, "srun": '#!/bin/sh\nshift\nexec "$@"\n'}
    for name, script in programs.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHON", sys.executable)
    variants = [{"name": name, "config": "digits_perceiver"} for name in ("first", "last")]
    variants[1]["after"] = "first"
    path = write(configs, GOOD | {"seeds": [3, 4], "budget": {"max_steps": 2}, "variants": variants})
    runs = tmp_path / "runs"
    assert (
        suite.main([str(path), "--runs_dir", str(runs), "--on", "slurm", "--sbatch=--time=1:00:00", "--seeds", "3"])
        == []
    )
    said = (tmp_path / "log").read_text().split()

    assert said.count("--parsable") == 2
    assert "--array=0" in said
    assert "--array=1" in said
    assert "--dependency=afterany:7" in said
    assert sorted(p.parent.parent.name for p in runs.rglob("results.json")) == ["first", "last"]
    assert "job 7: 1 runs" in capfd.readouterr().out


def test_a_job_that_is_preempted_lets_its_run_save_itself_and_goes_back_into_the_queue(tmp_path, monkeypatch):
    """With stand-ins for SLURM's programs; on a real SLURM, srun's own handler of a signal would kill the run at once."""
    programs = {
        "srun": 'echo $$ > "$LOG.run"; shift; exec "$@"',
        "scancel": 'echo "scancel $*" >> "$LOG"; kill -TERM "$(cat "$LOG.run")"',
        "scontrol": 'echo "scontrol $*" >> "$LOG"',
        "python": "trap 'echo saved >> \"$LOG\"; kill $!; exit 143' TERM; tail -f /dev/null > /dev/null & echo begun; wait",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHON", "python")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command = ["bash", str(ROOT / "configs/slurm/run.sbatch"), "src.fit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "begun\n"
        job.send_signal(signal.SIGUSR1)
    assert job.returncode == 0
    assert (tmp_path / "log").read_text().splitlines() == ["scancel --signal TERM 7", "saved", "scontrol requeue 7"]
