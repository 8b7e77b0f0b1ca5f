"""Notebooks are stored without outputs; `make notebooks` executes and renders them."""

import json
from pathlib import Path

import pytest

from tests.support import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_begins_at_the_root(path):
    cells = json.loads(path.read_text())["cells"]
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert cell["metadata"] == {}
    assert cells[0]["cell_type"] == "markdown"
    assert code_of(path)[0].count("\n") == 2
    assert 'os.path.isdir("src")' in code_of(path)[0]
