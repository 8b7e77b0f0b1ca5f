"""All that is to be known on a GPU, in one command of at most nine minutes: `make gpu`.

First the checks: kernels against float64 on the CPU; then short runs of `fit` in half precision, with DDP, FSDP and
torch.compile, and a run that is stopped and resumed. Then the benchmarks, each for as long as there is time. `--device cpu
--tiny` goes the same way on any machine, to see that it still leads there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from datamodules import UserError
from datamodules.images.digits import Digits

from ..backbones import LambdaLayer, Perceiver
from ..runs.folder import Run
from ..suites.warm import run_warm
from . import lambda_layers, measure, perceiver

BUDGET = 8.5 * 60  # seconds; the rest is for installation and the last benchmark's end
SCHEDULED = 0.6  # of the budget: no benchmark starts later


def run(device: str | None = None, tiny: bool = False) -> None:
    """Prints a line for each check, writes gpu_HARDWARE.csv and those of the benchmarks.

    Args:
        device: cuda, or cpu; a GPU if there is one.
        tiny: small shapes, few steps, and no benchmark of layers.

    Raises:
        UserError: a check failed.
    """
    began = monotonic()
    measure.use(device)
    kind = torch.get_default_device().type
    torch.set_default_device("cpu")  # the checks name their devices
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, check in checks(kind, tiny, Path(folder)):
            start, said = monotonic(), ""
            try:
                check()
            except Exception as error:  # the others tell more
                said = (str(error).splitlines() or [type(error).__name__])[0]
            rows.append({"check": name, "seconds": monotonic() - start, "result": said or "ok"})
            print(f"{name}: {said or 'ok'}, {rows[-1]['seconds']:.0f} s", flush=True)
    measure.use(kind)
    measure.save(rows, "gpu", finished=False)
    for name, benchmark in benchmarks(tiny):
        if monotonic() - began > SCHEDULED * BUDGET:
            print(f"{name}: left out, {monotonic() - began:.0f} s have passed")
            continue
        print(f"{name}:", flush=True)
        benchmark()
    if failed := [str(row["check"]) for row in rows if row["result"] != "ok"]:
        raise UserError(f"failed on this {kind}: {', '.join(failed)}; see above, and --debug")


def checks(kind: str, tiny: bool, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """The name of each check, and what raises where it does not hold."""
    for name, model in (("Perceiver", small_perceiver), ("lambda layer", lambda_layer)):
        yield f"{name} equals float64 on the CPU", partial(check_equal, model, kind)
    config = "digits_perceiver" if tiny else "quickstart"
    common = [
        "--config",
        config,
        "--runs_dir",
        str(folder),
        "--trainer.accelerator",
        "gpu" if kind == "cuda" else "cpu",
    ]
    common += ["--trainer.devices", "1", "--trainer.max_epochs", "2", "--trainer.limit_test_batches", "2"]
    common += ["--trainer.limit_train_batches", "20", "--trainer.limit_val_batches", "2"]
    variants = {
        "bf16": ["--trainer.precision", "bf16-mixed"],
        "fp16": ["--trainer.precision", "16-mixed"],
        "ddp": ["--trainer.strategy", "ddp"],
        "fsdp": ["--trainer.strategy", "fsdp"],
        "compile": ["--compile", "true"],
    }
    if kind != "cuda":
        del variants["fp16"], variants["compile"]  # the first is for GPUs, the second needs a compiler
    for name, options in variants.items():
        yield f"fit, {name}", partial(fit, [*common, "--cell", name, *options], folder, name)
    yield "a run resumes to the bits of one that was not stopped", partial(check_resume, common, folder)


def small_perceiver() -> tuple[torch.nn.Module, Any]:
    """A Perceiver and its input."""
    data = Digits(bands=8, batch_size=2)
    model = Perceiver(data.spec, num_latents=8, latent_dim=32, cross_attends=2, self_attends_per_block=1, self_heads=4)
    return model, data.flatten(next(iter(data.loader("train")))).inputs


def lambda_layer() -> tuple[torch.nn.Module, Any]:
    """A layer and its input. (In a whole network, rounding moves inputs of ReLU across 0, and gradients with them.)"""
    return LambdaLayer(64, 64, scope=(7, 7)).eval(), torch.randn(2, 64, 14, 14)


def check_equal(make: Callable[[], tuple[torch.nn.Module, Any]], kind: str) -> None:
    """Raises ArithmeticError where outputs or gradients differ from those in float64 on the CPU by more than 1e-3."""
    torch.manual_seed(0)
    model, inputs = make()
    found = []
    for device, dtype in (("cpu", torch.float64), (kind, torch.float32)):
        model.to(device, dtype).zero_grad()
        given = inputs if isinstance(inputs, dict) else {"": inputs}
        moved = {name: x.to(device, dtype) for name, x in given.items()}
        features = model(moved if isinstance(inputs, dict) else moved[""])
        features.square().mean().backward()
        kept = [features, *(p.grad for p in model.parameters() if p.grad is not None)]
        found.append([x.detach().double().cpu() for x in kept])
    for other, one in zip(*found, strict=True):
        worst, largest = float((one - other).abs().max()), float(other.abs().max())
        if not worst <= 1e-3 * max(1e-3, largest):
            raise ArithmeticError(f"differs by {worst:.1e} of {largest:.1e}")


def fit(options: list[str], folder: Path, name: str) -> Run:
    """Trains in a process of its own. Raises RuntimeError with the last line that it printed if it fails."""
    log = folder / f"{name}.log"
    if status := run_warm(options, log):
        lines = log.read_text().splitlines() or ["nothing"]
        raise RuntimeError(f"exit status {status}: {lines[-1]}")
    return Run(next(folder.glob(f"*/{name}/seed*")))


def check_resume(common: list[str], folder: Path) -> None:
    """Raises ArithmeticError where a run that lost its second epoch and was resumed differs from one that did not."""
    whole = fit([*common, "--cell", "whole"], folder, "whole").results()
    part = fit([*common, "--cell", "part"], folder, "part")
    for name in ("results.json", "checkpoints/last.ckpt"):  # previous.ckpt is that of the first epoch
        (part.folder / name).unlink()
    again = fit([*common, "--cell", "part", "--resume", "auto"], folder, "part").results()
    if again.metrics != whole.metrics:
        raise ArithmeticError(f"{again.metrics} instead of {whole.metrics}")


def benchmarks(tiny: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """The benchmarks in the order of what they tell."""

    def of_perceiver(precision: str) -> None:
        measure.use(str(torch.get_default_device()), precision)
        perceiver.run(["tiny"] if tiny else ["imagenet_2", "audioset"], rounds=1 if tiny else 3)

    yield "Perceiver, bf16", partial(of_perceiver, "bf16")
    if not tiny:
        yield "lambda layers", partial(lambda_layers.run, parts=["peers", "networks"], rounds=3)
        yield "Perceiver, float32", partial(of_perceiver, "32")
