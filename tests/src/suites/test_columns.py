"""A table of several suites: one command prepares, tunes, trains, measures and archives, and goes on from its archives."""

import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from datamodules import UserError
from src import suite
from src.compare import main as compare
from src.config.documents import read_yaml
from src.runs.archive import pack, unpack
from src.runs.folder import Run
from src.suites.columns import read_table
from src.suites.definition import load_suite
from src.tables.collect import csv_files

ROOT = Path(__file__).parents[3]
SHARED = {
    "source": "none",
    "seeds": [3, 4, 5],
    "budget": {"max_steps": 8},
    "tune": {"trials": 2, "scale": 0.5},
    "stress": 8,
    "space": {"model.optimizer.lr": {"low": 0.001, "high": 0.01, "log": True}},
}


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """A table of one column, which also has half of the budget."""
    folder = tmp_path / "configs" / "suites"
    folder.mkdir(parents=True)
    (folder.parent / "digits_perceiver.yaml").write_text((ROOT / "configs" / "digits_perceiver.yaml").read_text())
    small = {"name": "small", "config": "digits_perceiver"}
    write(folder / "tiny.yaml", {"inherit": "table", "variants": [small], "baseline": ["majority"]})
    monkeypatch.chdir(tmp_path)
    return write(folder / "table.yaml", {"columns": {"tiny": [1, 0.5]}, **SHARED})


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.integration
def test_one_command_tunes_trains_and_measures_and_its_archives_stand_for_the_runs(table, capfd, monkeypatch):
    """Also at a second budget, with the choices of the first."""
    options = [str(table), "--seeds", "3", "4", "--archive", "archive"]
    runs = suite.main([*options, "--jobs", "2"])
    assert sorted(str(run.folder) for run in runs) == sorted(
        f"runs/tiny{scale}/{cell}/seed{seed}"
        for scale in ("", "_x0.5")
        for cell in ("small", "trivial_majority")
        for seed in (3, 4)
    )
    chosen = json.loads(Path("runs/tiny_trials/chosen.json").read_text())["small"]
    steps = {}
    for run in (*runs, Run(Path("runs/tiny_trials/small_trial0/seed3"))):
        config = run.config()
        steps[config["experiment"]] = config["trainer"]["max_steps"]
        if run.folder.parent.name == "small":
            assert (
                config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == chosen["options"]["model.optimizer.lr"]
            )
    assert steps == {"tiny": 8, "tiny_x0.5": 4, "tiny_trials": 4}
    stressed = sorted(str(path.parent) for path in Path("runs").rglob("stress_last.json"))
    assert stressed == ["runs/tiny/small/seed3"]

    kept = {path.name: path.read_bytes() for path in Path("archive").iterdir()}
    assert sorted(kept) == ["tiny.tar.xz", "tiny_x0.5.tar.xz"]
    Path("runs").rename("elsewhere")
    monkeypatch.setattr(suite, "run_here", lambda works, jobs: pytest.fail(f"{works}") if works else iter(()))
    capfd.readouterr()
    assert len(suite.main(options)) == len(runs)
    assert "small" in capfd.readouterr().out
    assert {path.name: path.read_bytes() for path in Path("archive").iterdir()} == kept
    assert not list(Path("runs").rglob("*.ckpt"))

    written = []
    for name, place in (("a", "runs/tiny"), ("b", "archive/tiny.tar.xz")):
        compare([place, "--csv", f"{name}.csv"])
        written.append(
            [pd.read_csv(f"{name}{part}.csv").drop(columns="run", errors="ignore") for part in ("", "_cells")]
        )
    for of_runs, of_archive in zip(*written, strict=True):
        pd.testing.assert_frame_equal(of_runs, of_archive)
    assert pd.read_csv("b.csv")["run"].str.startswith("tiny/tiny/").all()

    for path, content in csv_files(Path("archive")).items():
        path.write_bytes(content)
    rows = {path.stem: pd.read_csv(path) for path in Path("archive").glob("*.csv")}
    trials, cells = rows["trials"], rows["cells"].set_index(["experiment", "cell"])
    assert trials[trials["chosen"]]["value"].tolist() == [pytest.approx(chosen["options"]["model.optimizer.lr"])]
    assert trials["val"].notna().all()
    assert cells["training_samples"].loc[[("tiny", "small"), ("tiny_x0.5", "small")]].tolist() == [8 * 64, 4 * 64]
    assert rows["stress"]["experiment"].tolist() == ["tiny"]
    assert rows["time"].groupby("kind")["runs"].sum().to_dict() == {"baseline": 4, "run": 4, "trial": 2}


def test_a_rehearsal_has_few_seeds_and_trials_and_a_name_of_its_own(table):
    small = suite.rehearsal(load_suite(table.with_name("tiny.yaml")).scaled(0.5))
    assert (small.name, small.seeds, small.budget, small.tune.trials) == ("tiny_x0.5", (3, 4), {"max_steps": 4}, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"columns": {"tinny": None}}, "there is no suite .*: did you mean tiny"),
        ({"columns": {"tiny": [0.5, 1]}}, "should begin with 1"),
        ({"columns": {"tiny": ["all"]}}, "should be a list of shares"),
        ({"columns": {}}, "name suites under columns"),
        ({"prepare": ["digit"]}, "should be a list of data sets"),
        ({"source": None}, "lacks source"),
    ],
)
def test_a_mistake_in_a_table_is_one_line_that_names_the_file(table, change, says):
    content = {key: value for key, value in (read_yaml(table) | change).items() if value is not None}
    with pytest.raises(UserError, match=says) as error:
        read_table(write(table, content))
    assert "table.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": {"max_epochs": 3}}, "max_steps or max_flops can be scaled"),
        ({"budget": None}, "max_steps or max_flops can be scaled"),
        ({"tune": {"trials": 0}}, "should have whole trials"),
        ({"tune": {"scale": 0.5}}, "lacks trials"),
        ({"stress": True}, "should be a number of test samples"),
    ],
)
def test_a_mistake_in_what_columns_share_is_told_for_the_column(table, change, says):
    write(table, {key: value for key, value in (read_yaml(table) | change).items() if value is not None})
    with pytest.raises(UserError, match=says) as error:
        load_suite(table.with_name("tiny.yaml"))
    assert "tiny.yaml" in str(error.value)


def test_an_archive_gives_back_what_is_missing_and_leaves_what_is_there(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name * 1000)
    archive = tmp_path / "all.tar.xz"
    pack(archive, [("x/a", tmp_path / "a"), ("x/b", tmp_path / "b")])
    folder = tmp_path / "out"
    assert unpack(archive, folder) == 2
    (folder / "x" / "a").unlink()
    (folder / "x" / "b").write_text("mine")
    assert unpack(archive, folder) == 1
    assert [(folder / "x" / name).read_text() for name in "ab"] == ["a" * 1000, "mine"]
    (tmp_path / "begun" / "x" / "checkpoints").mkdir(parents=True)
    assert unpack(archive, tmp_path / "begun") == 0  # a run of its own
    whole = archive.read_bytes()
    for damaged in (whole[:100], whole[:60] + bytes(8) + whole[68:], b"", b"no archive"):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            unpack(archive, tmp_path / "other")


@pytest.mark.parametrize(("name", "kind"), [("../a", tarfile.REGTYPE), ("/a", tarfile.REGTYPE), ("a", tarfile.SYMTYPE)])
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path, name, kind):
    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member, io.BytesIO())
    with pytest.raises(UserError, match="is no file inside of it"):
        unpack(tmp_path / "all.tar.xz", tmp_path / "out")
    assert not list(tmp_path.rglob("a"))


def test_a_table_is_no_suite_and_names_its_columns(table):
    with pytest.raises(UserError, match=r"table\.yaml is a table of suites: name one of its columns, tiny$"):
        load_suite(table)


@pytest.mark.parametrize(("code", "reached"), [(1, ["tiny", "tiny_x0.5"]), (130, ["tiny"])])
def test_a_column_that_fails_does_not_stop_the_next_but_a_signal_does(table, monkeypatch, code, reached):
    found = []

    def run_suite(suite, options, scale):
        found.append(suite.scaled(scale).name)
        raise SystemExit(code)

    monkeypatch.setattr(suite, "run_suite", run_suite)
    with pytest.raises(SystemExit) as ended:
        suite.main([str(table)])
    assert (ended.value.code, found) == (code, reached)
