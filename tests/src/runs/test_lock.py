"""One owner of a run folder at a time; the lock of a dead one is taken over."""

import json
import os
import socket
import subprocess
import sys

import pytest

from datamodules import UserError
from src.runs.lock import STALE, owned
from tests.support import ROOT

HOLD = """
import sys
from pathlib import Path
from src.runs.lock import owned
with owned(Path(sys.argv[1]), ""):
    print(1, flush=True)
    input()
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that owns tmp_path/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_the_owner_is_and_takes_over_once_it_was_killed(owner, tmp_path):
    lock, says = tmp_path / "run.lock", rf"run is in use by process {owner.pid} on \S+ since \S+: wait$"
    with pytest.raises(UserError, match=says), owned(tmp_path / "run", "wait"):
        pass
    owner.kill()
    owner.wait()
    assert lock.exists()
    with owned(tmp_path / "run", "wait"):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


def test_a_lock_is_given_back_also_where_its_owner_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), owned(tmp_path / "run", "wait"):
        raise ZeroDivisionError
    with (
        owned(tmp_path / "run", "wait"),
        pytest.raises(UserError, match="in use by this process"),
        owned(tmp_path / "run", ""),
    ):
        pass


def written(tmp_path, age: float = 0, **facts) -> None:
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "started": 0, "since": "then"} | facts))
    os.utime(path, (path.stat().st_mtime - age,) * 2)


@pytest.mark.parametrize(
    ("age", "facts"),
    [
        (0, {}),  # process 1 runs, but began at another time
        (0, {"pid": 2**22 + 1}),  # no such process
        (STALE + 60, {"host": "elsewhere"}),
    ],
    ids=["another process", "no process", "another machine, long ago"],
)
def test_an_owner_that_is_dead_by_its_facts_is_passed_over(tmp_path, age, facts):
    written(tmp_path, age, **facts)
    with owned(tmp_path / "run", "wait"):
        pass


def test_an_owner_on_another_machine_lives_while_it_touches_its_file(tmp_path):
    written(tmp_path, 30, host="elsewhere")
    says = r"process 1 on elsewhere since then, last seen 3\d s ago: wait, or delete \S*run.lock if it no longer runs"
    with pytest.raises(UserError, match=says), owned(tmp_path / "run", "wait"):
        pass


def test_where_the_kernel_cannot_lock_the_facts_decide(tmp_path, monkeypatch, owner):
    facts = (tmp_path / "run.lock").read_text()
    monkeypatch.setattr("src.runs.lock.lock", lambda number: True)
    with pytest.raises(UserError, match=f"process {owner.pid} "), owned(tmp_path / "run", "wait"):
        pass
    assert (tmp_path / "run.lock").read_text() == facts


@pytest.mark.parametrize("text", ["", "{", "[]", "\0\0"])
def test_a_lock_that_was_just_being_written_is_taken_over(tmp_path, text):
    (tmp_path / "run.lock").write_text(text)
    with owned(tmp_path / "run", "wait"):
        pass
