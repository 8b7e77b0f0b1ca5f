"""The tables of README and docs/ are those of results/, byte for byte."""

import re

import pytest

from datamodules import UserError
from src.tables import __main__ as tables
from src.tables import text


def test_the_pages_hold_what_the_committed_results_say(capsys):
    tables.main(["--check", "--pages"])
    assert capsys.readouterr().out == ""


def test_a_figure_that_was_changed_by_hand_is_found(monkeypatch, tmp_path):
    (tmp_path / "results").symlink_to(text.ROOT / "results")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").touch()
    page = tmp_path / "docs/results.md"
    whole = (text.ROOT / "docs/results.md").read_text()
    before, table = whole.split("<!-- table perceiver -->")
    page.write_text(f"{before}<!-- table perceiver -->{re.sub(r'[0-9]+[.][0-9]+ [|]', '9.99 |', table, count=1)}")
    assert page.read_text() != whole
    monkeypatch.setattr(text, "ROOT", tmp_path)
    with pytest.raises(SystemExit):
        tables.main(["--check", "--pages"])
    assert tables.main(["--pages"]) == [page]
    assert page.read_text() == whole


def test_a_table_that_nothing_makes_is_named():
    with pytest.raises(UserError, match=r"there is no table 'perceivr': did you mean perceiver"):
        tables.update_tables("<!-- table perceivr -->\n<!-- end -->\n")
