"""metrics.csv: the format of Lightning's logger, appended to, and merged when a run resumes."""

import os
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from datamodules import UserError
from src.runs import metrics_log
from src.runs.metrics_log import MetricsLog, read_rows

ROWS = [
    ({"train/loss": 2.5, "epoch": 0}, 9),
    ({"val/top1": 0.1, "epoch": 0}, 17),
    ({"train/loss": 0.1 + 0.2, "epoch": 1}, 19),
    ({"test/top1": float("nan"), "epoch": 1}, 36),
]


def log(folder: Path, rows=ROWS) -> MetricsLog:
    folder.mkdir(exist_ok=True)
    found = MetricsLog(folder)
    for metrics, step in rows:
        found.log_metrics(metrics, step)
    return found


def test_the_file_is_byte_for_byte_that_of_lightnings_logger(tmp_path):
    theirs = CSVLogger(str(tmp_path / "theirs"), name="", version="")
    for metrics, step in ROWS:
        theirs.log_metrics(metrics, step)
        theirs.save()
    log(tmp_path / "ours")
    assert (tmp_path / "ours" / "metrics.csv").read_bytes() == (tmp_path / "theirs" / "metrics.csv").read_bytes()


def test_a_run_that_resumes_keeps_the_rows_before_its_checkpoint_and_ends_as_one_that_did_not_stop(tmp_path):
    log(tmp_path / "whole")
    state = log(tmp_path / "run", ROWS[:2]).state()
    log_again = MetricsLog(tmp_path / "run")
    log_again.resume(18, state)
    log_again.log_metrics(*ROWS[2])
    log_again = MetricsLog(tmp_path / "run")  # killed here, again
    log_again.resume(18, state)
    assert log_again.state() == state
    for row in ROWS[2:]:
        log_again.log_metrics(*row)
    assert log_again.path.read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_a_row_that_was_cut_off_is_logged_again(tmp_path):
    before = log(tmp_path / "run", ROWS[:2])
    state = before.state()
    with before.path.open("ab") as file:
        file.write(b"1,19,0.30")
    again = MetricsLog(tmp_path / "run")
    again.resume(18, state)
    for row in ROWS[2:]:
        again.log_metrics(*row)
    assert again.path.read_bytes() == log(tmp_path / "whole").path.read_bytes()


@pytest.mark.parametrize("damage", ["missing row", "changed row", "missing file", "bytes"])
def test_rows_that_are_missing_or_changed_are_noticed(tmp_path, damage):
    found = log(tmp_path / "run", ROWS[:3])
    state, lines = found.state(), found.path.read_text().splitlines(keepends=True)
    if damage == "missing file":
        found.path.unlink()
    elif damage == "bytes":
        found.path.write_bytes(b"\xff" + found.path.read_bytes())
    else:
        changed = [] if damage == "missing row" else [lines[2].replace("0.1", "0.9")]
        found.path.write_text("".join([*lines[:2], *changed, *lines[3:]]))
    with pytest.raises(UserError, match=r"metrics.csv (lacks rows, or has others: .* after step 20|is damaged)"):
        MetricsLog(tmp_path / "run").resume(20, state)


def test_a_checkpoint_of_an_older_version_keeps_the_rows_before_its_step(tmp_path):
    path = log(tmp_path / "run").path
    MetricsLog(tmp_path / "run").resume(18, None)
    assert [row["step"] for row in read_rows(path)] == ["9", "17"]


def test_the_file_is_never_missing_or_shorter_than_what_a_checkpoint_knows(tmp_path, monkeypatch):
    """Not while a new column appears, and not while a run resumes: a kill is at any system call."""
    state = log(tmp_path / "run", ROWS[:2]).state()
    replace, sizes = os.replace, []

    def watched(source, target):
        sizes.append(len(read_rows(Path(target))))
        replace(source, target)
        sizes.append(len(read_rows(Path(target))))

    monkeypatch.setattr(os, "replace", watched)
    again = MetricsLog(tmp_path / "run")
    again.resume(18, state)
    for row in ROWS[2:]:
        again.log_metrics(*row)
    assert min(sizes) >= 2
    assert metrics_log.read_rows(again.path)[3]["test/top1"] == "nan"
