import logging

import pytest
import torch

from src.backbones import fastest as module
from src.backbones.fastest import fastest


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(module, "chosen", {})


def fails():
    raise RuntimeError("no kernel image is available")


def test_the_fastest_of_the_equal_ways_is_chosen_once(monkeypatch, caplog):
    x, calls = torch.arange(1.0, 4.0), []
    found = {"reference": x * 2, "equal": x + x, "wrong": x * 2.1, "nan": x * float("nan")}
    seconds = {"reference": 2.0, "equal": 1.0, "wrong": 0.1, "nan": 0.1}
    ways = {name: lambda name=name: calls.append(name) or [x, found[name]] for name in found} | {"fails": fails}
    monkeypatch.setattr(module, "timed", lambda way: (way(), seconds[calls[-1]])[1])
    with caplog.at_level(logging.WARNING):
        assert fastest(("double", 3), lambda: ways, 1e-6) == "equal"
    left_out = [record.message.split(" ")[0] for record in caplog.records]
    assert left_out == ["wrong", "nan", "fails"]
    before = len(calls)
    assert fastest(("double", 3), lambda: ways, 1e-6) == "equal"
    assert len(calls) == before
    fastest(("double", 4), lambda: ways, 1e-6)
    assert len(calls) > before


def test_a_reference_that_fails_fails():
    with pytest.raises(RuntimeError, match="no kernel image"):
        fastest("double", lambda: {"reference": fails, "equal": lambda: [torch.ones(1)]}, 1e-6)
