"""The tables of docs/ are those of results/, byte for byte."""

import re

import pytest

from datamodules import UserError
from src.benchmarks import readme_tables


def test_the_pages_hold_what_the_committed_results_say(capsys):
    readme_tables.main(["--check"])
    assert capsys.readouterr().out == ""


def test_a_figure_that_was_changed_by_hand_is_found(monkeypatch, tmp_path):
    (tmp_path / "results").symlink_to(readme_tables.ROOT / "results")
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs/results.md"
    text = (readme_tables.ROOT / "docs/results.md").read_text()
    before, table = text.split("<!-- table perceiver -->")
    page.write_text(f"{before}<!-- table perceiver -->{re.sub(r'[0-9]+[.][0-9]+ [|]', '9.99 |', table, count=1)}")
    assert page.read_text() != text
    monkeypatch.setattr(readme_tables, "ROOT", tmp_path)
    with pytest.raises(SystemExit):
        readme_tables.main(["--check"])
    assert readme_tables.main([]) == [page]
    assert page.read_text() == text


def test_a_table_that_nothing_makes_is_named():
    with pytest.raises(UserError, match=r"there is no table 'perceivr': did you mean perceiver"):
        readme_tables.update_tables("<!-- table perceivr -->\n<!-- end -->\n")
