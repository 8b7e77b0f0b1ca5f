import logging

import pytest
import torch

from src.backbones import fastest as module
from src.backbones.fastest import fastest


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(module, "chosen", {})


def ways(calls):
    def count(name, result):
        def way(x):
            calls.append(name)
            return result(x)

        return way

    def fail(x):
        raise RuntimeError("no kernel image is available")

    return {
        "reference": count("reference", lambda x: x * 2),
        "equal": count("equal", lambda x: x + x),
        "wrong": count("wrong", lambda x: x * 2.1),
        "wrong gradient": count("wrong gradient", lambda x: x.detach() + x),
        "nan": count("nan", lambda x: x * float("nan")),
        "fails": fail,
    }


def test_the_fastest_of_the_equal_ways_is_chosen_once(monkeypatch, caplog):
    calls = []
    seconds = {"reference": 2.0, "equal": 1.0, "wrong": 0.1, "wrong gradient": 0.1, "nan": 0.1}

    def timed(way, inputs):
        way(*inputs)
        return seconds[calls[-1]]

    monkeypatch.setattr(module, "timed", timed)
    x = torch.arange(1.0, 4.0).requires_grad_()
    with caplog.at_level(logging.WARNING):
        assert fastest("double", ways(calls), [x], 1e-6) == "equal"
    assert [name for name in ("wrong", "wrong gradient", "nan", "fails") if name in caplog.text] == [
        "wrong",
        "wrong gradient",
        "nan",
        "fails",
    ]
    before = len(calls)
    assert fastest("double", ways(calls), [x + 1], 1e-6) == "equal"  # another tensor of this shape
    assert len(calls) == before
    fastest("double", ways(calls), [x[:2]], 1e-6)
    assert len(calls) > before
    assert x.grad is None  # trials leave nothing behind


def test_a_reference_that_fails_fails():
    with pytest.raises(RuntimeError, match="no kernel image"):
        fastest("double", {"reference": ways([])["fails"], "equal": lambda x: x}, [torch.ones(1)], 1e-6)
