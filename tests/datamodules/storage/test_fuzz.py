"""A sample of the damaged data that `make fuzz` tries."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.fuzz_data import TARGETS, fuzz
from tests.support.shards import write


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_data_end_in_one_line_or_in_what_was_written(target):
    said: list[str] = []
    assert fuzz(target, 9, said.append) == []
    assert said[0].startswith(f"{target}: 9 cases, 0 problems")


@pytest.mark.parametrize(("command", "status"), [("lint", 1), ("stats", 2), ("reindex", 0)])
def test_the_commands_say_one_line_about_a_damaged_index(tmp_path, command, status):
    write(tmp_path / "tiny")
    index = Path(tmp_path / "tiny" / "train-000000.index.json")
    index.write_bytes(b"[" * 100_000)
    words = [sys.executable, "-m", "datamodules.prepare", command, str(tmp_path / "tiny")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    lines = {"lint": done.stdout, "reindex": done.stdout}.get(command, done.stderr).splitlines()
    told = [line for line in lines if "nested too deeply" in line or "written" in line]
    assert len(told) == 1
    assert "Traceback" not in done.stderr
