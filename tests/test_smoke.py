"""Every config and every variant of the papers trains for two steps and is evaluated, through src.fit, on tiny files.

The files have the real formats of their data sets, but are small and few. The models are small too: the sizes below replace
the config's, everything else stays.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import src.fit as fit
from src.suites.definition import expand_variant, load_suite
from tests.support import ROOT, SUITES
from tests.support.tiny import Tiny

pytestmark = pytest.mark.smoke
SMALL_COPIES = ("digits_ablations", "permuted_fashion_mnist")  # the variants of paper suites, on other data
BUDGET = ("trainer.max_epochs", "data.fold", "data.fold_seed")  # overrides of how long, or on which fold, to train
SMALLER = {
    "Perceiver": {"num_latents": 16, "latent_dim": 32},
    "Transformer": {"dim": 32, "depth": 1, "heads": 1},
    "ViT": {"name": "vit_tiny_patch16_224"},
    "LambdaNet": {"widths": [32, 64]},
}
SMALLER_HEADS = {"channels": 32, "box_features": 64, "regions": 16}  # of Detection


def flow(value: object) -> str:
    """A value as an option takes it."""
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip(".\n")


def kind(value: object) -> object:
    """Two numbers are of one kind: variants that differ in a rate or a size alone take the same path. Sizes are made small
    here anyway; that all variants can be parsed and built is tested in tests/test_suites.py and tests/test_configs.py."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value


def cases() -> dict[str, tuple[str, ...]]:
    """From a name to the arguments of src.fit: all configs, and the variants that equal no config and no variant before."""
    found = {path.stem: ("--config", str(path)) for path in sorted((ROOT / "configs").glob("*.yaml"))}
    seen = {(path, "[]") for _, path in found.values()}
    for path in SUITES:
        if path.stem in SMALL_COPIES:
            continue
        suite = load_suite(path)
        for variant in suite.variants:
            if "model" in variant.overrides:
                continue  # a trivial baseline, which is fitted in one step: tests/src/tasks/test_trivial.py
            overrides = sorted((o, kind(value)) for o, value in variant.overrides.items() if o not in BUDGET)
            key = (str(variant.config), json.dumps(overrides, sort_keys=True))
            if key not in seen:
                found[f"{suite.name}/{variant.name}"] = ("--variant", f"{suite.name}/{variant.name}")
            seen.add(key)
    return found


def option(args: list[str], name: str) -> str | None:
    """The last value of an option."""
    return next((value for word, value in zip(args[-2::-1], args[:0:-1], strict=True) if word == name), None)


def smoke(args: Sequence[str], tiny: Tiny, runs: Path, *more: str) -> dict:
    expanded = expand_variant(args)
    config = yaml.safe_load(Path(option(expanded, "--config") or "").read_text())
    task, read = config["model"], json.loads(option(expanded, "--data") or "null") or config["data"]
    data = read["class_path"].rpartition(".")[2]
    backbone = task["init_args"]["backbone"] | json.loads(option(expanded, "--model.backbone") or "{}")
    changed = {f"data.{option}": value for option, value in tiny.options(data).items()}
    smaller = SMALLER.get(backbone["class_path"].rpartition(".")[2], {})
    changed |= {f"model.backbone.{option}": value for option, value in smaller.items()}
    if "optimizer" in task["init_args"]:
        changed["model.optimizer.lr"] = 0.001  # the config's may be for a batch of 1,024, and this one has 2
    if task["class_path"].endswith("Detection"):
        changed |= {f"model.{option}": value for option, value in SMALLER_HEADS.items()}
    words = [word for option, value in changed.items() for word in (f"--{option}", flow(value))]
    overlay = ROOT / "configs" / "trainer" / "smoke.yaml"
    return fit.main([*args, "--config", str(overlay), "--runs_dir", str(runs), *words, *more]).read("results.json")


@pytest.fixture(scope="session")
def trained_half(tiny, tmp_path_factory) -> Path:
    """A run whose weights can be probed."""
    runs = tmp_path_factory.mktemp("half")
    smoke(["--variant", "probe/perceiver_half"], tiny, runs, "--trainer.enable_checkpointing", "true")
    return runs / "probe" / "perceiver_half" / "seed0"


@pytest.mark.parametrize("args", [pytest.param(args, id=name) for name, args in cases().items()])
def test_two_steps_and_an_evaluation(args, tiny, tmp_path, request):
    more = []
    of_half = ("probe/probe", "probe/fine_tuned", "transfer_garments/pretrained")
    if args[1] in of_half or args == ("--config", str(ROOT / "configs/fashion_mnist_probe.yaml")):
        more = ["--model.weights", str(request.getfixturevalue("trained_half"))]
    if args[1].startswith("transfer/"):  # the tiny scenes show digits, and nothing was trained on them
        more = ["--data.of", "digits", "--model.weights", "null"]
    results = smoke(args, tiny, tmp_path, *more)
    assert results["steps"] == 2
    for split in ("val", "test"):
        assert results["metrics"][split]["samples"] > 0
        assert math.isfinite(results["metrics"][split].get("loss", 0.0))
