"""The walks of CONTRIBUTING.md: a backbone, a data set, a metric and a task, each one new file and at most one line."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.support import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
WALKS = re.findall(r"^## An? ([a-z ]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.integration
@pytest.mark.parametrize(("what", "walk"), WALKS, ids=[what for what, _ in WALKS])
def test_a_walk_is_one_new_file_that_trains(what, walk, tmp_path):
    for name in ("src", "datamodules", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = re.findall(r"```python\n# (.*?)\n(.*?)```", walk, re.DOTALL)
    (file, code), *lines = blocks
    assert not (tmp_path / file).exists()
    (tmp_path / file).write_text(code)
    assert len(lines) <= 1
    for _, line in lines:
        registry = tmp_path / "src/metrics/registry.py"
        text = registry.read_text().replace('        Metric("top5"', f'{line}        Metric("top5"', 1)
        registry.write_text(
            text.replace("from .contributions", "from .balanced_accuracy import balanced_accuracy\nfrom .contributions")
        )
    (command,) = re.findall(r"^    \$ (python .*?[^\\])$", walk, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, *shlex.split(command.replace("\\\n", " "))[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (results,) = tmp_path.glob("runs/*/*/seed0/results.json")
    found = json.loads(results.read_text())["metrics"]["test"]
    assert 0 <= found["top1"] <= 1
    assert what != "metric" or 0 < found["balanced_accuracy"] <= 1


def test_there_are_the_four_walks():
    assert [what for what, _ in WALKS] == ["backbone", "data set", "metric", "task"]
