"""Suites: mistakes in their files are said in one line, and the runner goes on where it was stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml

from datamodules import UserError
from src import suite
from src.suites.definition import load_suite

ROOT = Path(__file__).parent.parent
GOOD = {"source": "none", "cells": [{"name": "small", "config": "digits_perceiver"}]}


@pytest.fixture
def configs(tmp_path) -> Path:
    """A folder of one config, and of suites."""
    (tmp_path / "configs" / "suites").mkdir(parents=True)
    config = (ROOT / "configs" / "digits_perceiver.yaml").read_text()
    (tmp_path / "configs" / "digits_perceiver.yaml").write_text(config)
    return tmp_path / "configs"


def write(configs: Path, content: object) -> Path:
    path = configs / "suites" / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cells": []}, "cells should be a list of one or more"),
        ({"cell": []}, "has the unknown key 'cell': did you mean cells"),
        ({"seeds": 3}, r"seeds 3 should be a list of whole numbers, such as \[0, 1, 2\]"),
        ({"budget": {"epochs": 3}}, "budget has the unknown key 'epochs': did you mean max_epochs"),
        ({"cells": [{"name": "a"}]}, "cell 1 lacks config"),
        ({"cells": [{"name": "a", "config": "digit_perceiver"}]}, "cell a: there is no config .*did you mean digits_perc"),
        ({"cells": GOOD["cells"] * 2}, "two cells are called small"),
        ({"cells": [GOOD["cells"][0] | {"overrides": [1]}]}, "cell small: overrides .* should map options to values"),
        ({"cells": [GOOD["cells"][0] | {"published": {"top1": 5}}]}, "cell small, top1: expected the keys v1, v2, found 5"),
        ({"cells": [GOOD["cells"][0] | {"published": {"top1": {"v3": 5}}}]}, "unknown key 'v3'"),
        ({"cells": [GOOD["cells"][0] | {"published": {"top1": {"v1": "good"}}}]}, "should be numbers"),
        ({"cells": [GOOD["cells"][0] | {"after": "smal"}]}, "cell small: no cell before it is called 'smal'"),
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
    path.write_text("cells: [")
    with pytest.raises(UserError, match=r"tiny\.yaml is not valid YAML"):
        load_suite(path)
    path.write_text("nothing")
    with pytest.raises(UserError, match=r"tiny\.yaml: expected the keys source, cells"):
        load_suite(path)


def test_overrides_and_budget_become_options_with_seed_and_place_of_the_run(configs):
    overrides = {"data.bands": 2, "model.weights": "{runs_dir}/tiny/a/seed{seed}", "model.backbone.cross_weights": None}
    content = GOOD | {"budget": {"max_time": "00:00:10:00"}, "cells": [GOOD["cells"][0] | {"overrides": overrides}]}
    loaded = load_suite(write(configs, content))
    options = loaded.options(loaded.cells[0], 2, Path("there"))
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {
        "--config": str(configs / "digits_perceiver.yaml"),
        "--runs_dir": "there",
        "--experiment": "tiny",
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
    broken = {"name": "broken", "config": "digits_perceiver", "overrides": {"data.band": 2}}
    path = write(configs, GOOD | {"budget": {"max_epochs": 1}, "cells": [broken, *GOOD["cells"]]})
    runs = tmp_path / "runs"
    with pytest.raises(SystemExit) as stopped:
        suite.main([str(path), "--runs_dir", str(runs), "--seeds", "5"])
    assert stopped.value.code == 1
    said = capfd.readouterr().err
    assert "1 of 2 runs broke:\ntiny: broken, seed 5: python -m src.fit --config" in said
    assert "has no option 'band': did you mean bands?" in said
    results = runs / "tiny" / "small" / "seed5" / "results.json"
    assert json.loads(results.read_text())["epochs"] == 1
    written = results.stat().st_mtime_ns
    [run] = suite.main([str(path), "--runs_dir", str(runs), "--seeds", "5", "--cells", "small"])
    assert run.folder == results.parent
    assert results.stat().st_mtime_ns == written


def test_an_unknown_cell_is_named(configs):
    with pytest.raises(UserError, match=r"suite tiny has no cell 'smal': did you mean small"):
        suite.main([str(write(configs, GOOD)), "--cells", "smal"])


@pytest.mark.integration
def test_cells_that_read_others_come_after_them_and_several_run_at_a_time(configs, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(ROOT)
    cells = [{"name": name, "config": "digits_perceiver"} for name in ("first", "alone", "last")]
    cells[2]["after"] = "first"
    path = write(configs, GOOD | {"budget": {"max_steps": 2}, "cells": cells})
    assert [[cell.name for cell in wave] for wave in load_suite(path).waves()] == [["first", "alone"], ["last"]]
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
    path = write(configs, GOOD | {"budget": {"max_steps": 2}, "cells": [broken, *GOOD["cells"]]})
    options = [str(path), "--runs_dir", str(tmp_path / "runs"), "--on", "ray"]
    try:
        with pytest.raises(SystemExit):
            suite.main(options)
        said = capfd.readouterr()
        assert "tiny: broken, seed 0: broke, see " in said.out
        assert "1 of 2 runs broke:\ntiny: broken, seed 0: python -m src.fit" in said.err
        log = tmp_path / "runs" / "tiny" / "broken" / "seed0.log"
        assert "has no option 'band': did you mean bands?" in log.read_text()
        [run] = suite.main([*options, "--cells", "small"])  # finished: Ray has nothing to do
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
    cells = [{"name": name, "config": "digits_perceiver"} for name in ("first", "last")]
    cells[1]["after"] = "first"
    path = write(configs, GOOD | {"seeds": [3, 4], "budget": {"max_steps": 2}, "cells": cells})
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
