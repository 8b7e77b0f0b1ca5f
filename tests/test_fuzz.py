"""Every command ends by itself, with one line for what is broken, and runs nothing that a stranger's files name."""

import pytest

from tests.support import fuzz

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fuzz.good_run(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("command", fuzz.COMMANDS)
def test_a_sample_of_broken_and_hostile_inputs_ends_in_one_line_each(command, run):
    for number in range(6):
        words, outcome, complaint = fuzz.attempt(command, number, run)
        assert complaint is None, (command, number, complaint, words, outcome.errors)


def test_the_good_inputs_are_good(run, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "spoil", lambda path, draw: None)
    for command in ("fit", "suite", "compare", "evaluate", "visualize"):
        _, outcome, complaint = fuzz.attempt(command, 1, run)
        assert (outcome.status, complaint) == (0, None), outcome.errors
