"""What the benchmarks compute rather than time: the paper's accounting, equal work, fitted exponents."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest

from src.benchmarks import metrics
from src.benchmarks.lambda_layers import LAYERS, make_memory_step, map_gib
from src.benchmarks.lambda_layers import implementations as implementations_of_layers
from src.benchmarks.perceiver import SHAPES, Shape, defined_flops, executed_flops, implementations, ours
from src.benchmarks.scaling import exponent
from tests.support import ROOT


@pytest.mark.parametrize(
    ("layer", "published"),
    [
        ("attention, global", 123),
        ("attention, axial", 4.82),
        ("lambda", 1.92),
        ("lambda k=8", 0.96),
        ("lambda shared", 0.625),
    ],
)
def test_the_papers_memory_column_comes_out(layer, published):
    assert layer in LAYERS
    assert map_gib(layer) == pytest.approx(published, rel=0.005)


def test_perceivers_that_are_compared_have_the_same_parameters():
    made = {name: make(SHAPES["small"])[0] for name, make in implementations().items()}
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in made.items()}
    assert set(counts) == {"ours", "perceiver_pytorch", "transformers"}
    assert counts["ours"] == counts["transformers"]
    # perceiver-pytorch shares its latent transformers but for the first
    assert counts["perceiver_pytorch"] > counts["ours"]


def test_reading_along_axes_executes_fewer_operations_than_the_definition_and_more_with_more_elements():
    def counts(side: int) -> tuple[int, int, int]:
        shape = Shape(2, {"image": ((side, side), 1)}, 16, 8, 16, 1, 1)
        general = executed_flops(partial(ours, separable=False), shape)
        return executed_flops(ours, shape), general, defined_flops(shape)

    small, large = counts(16), counts(32)
    assert small[0] < small[1] <= small[2]  # the definition also counts a gradient of the values
    assert all(a < b for a, b in zip(small, large, strict=True))
    # four times the elements: of a pair only 1 + 3 channels are multiplied, in place of 1 + 66
    assert (large[0] - small[0]) * 8 < large[1] - small[1]


def test_the_exponent_of_a_power_law_is_found():
    elements = np.array([2**p for p in range(12, 19)])
    frame = pd.DataFrame({"elements": elements, "step_s": 3e-6 * elements**1.02})
    assert exponent(frame, "step_s") == pytest.approx(1.02)


def test_average_precisions_that_are_compared_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = metrics.run(rounds=1, samples=400, classes=9).set_index("implementation")
    assert (found["difference"] < 1e-6).all()
    assert (found.loc["ours", "difference"] < 1e-12).all()


@pytest.mark.integration
def test_what_a_gpu_is_asked_runs_on_a_cpu_too(tmp_path):
    command = [sys.executable, "-m", "src.benchmark", "gpu", "--device", "cpu", "--tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (checks,) = (tmp_path / "results").glob("gpu_*.csv")
    found = pd.read_csv(checks).set_index("check")["result"]
    assert set(found) == {"ok"}
    assert {"fit, bf16", "fit, ddp", "fit, fsdp", "a run resumes to the bits of one that was not stopped"} < set(
        found.index
    )
    (times,) = (path for path in (tmp_path / "results").glob("perceiver_*-bf16.csv") if "parts" not in path.name)
    assert set(pd.read_csv(times)["dtype"]) == {"bfloat16"}


def test_memory_is_measured_with_gradients_held_whoever_made_the_layer():
    for build in ("lambda", "conv 3x3", *implementations_of_layers().values()):
        scope = () if isinstance(build, str) else (7,)
        step = make_memory_step(build, 1, 16, 8, *scope)
        step()
        (forward,) = step.args
        held = [parameter.grad for parameter in forward.func.parameters()]
        step()
        after = [parameter.grad for parameter in forward.func.parameters()]
        assert all(one is other for one, other in zip(held, after, strict=True))
        assert any(gradient is not None for gradient in held)
