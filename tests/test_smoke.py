"""Every config trains for two steps and is evaluated, through src.fit, on tiny files of the format that its data have.

The files are real ones, small and few. So are the models: the widths and sides below replace the config's, all else stays.
"""

import math
from pathlib import Path

import pytest
import yaml

from src import fit
from tests.support import ROOT
from tests.support.tiny import Tiny

pytestmark = pytest.mark.smoke
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SMALLER = {
    "Perceiver": {"num_latents": 16, "latent_dim": 32},
    "Transformer": {"dim": 32, "depth": 2},
    "ViT": {"name": "vit_tiny_patch16_224"},
    "LambdaNet": {"widths": [32, 64]},
}
SMALLER_HEADS = {"channels": 32, "box_features": 64, "regions": 16}  # of Detection


def flow(value: object) -> str:
    """A value as an option takes it."""
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).strip(".\n")


def smoke(path: Path, tiny: Tiny, runs: Path, *more: str) -> dict:
    config = yaml.safe_load(path.read_text())
    task, data = config["model"], config["data"]["class_path"].rpartition(".")[2]
    backbone = task["init_args"]["backbone"]["class_path"].rpartition(".")[2]
    changed = {f"data.{option}": value for option, value in tiny.options(data).items()}
    changed |= {f"model.backbone.{option}": value for option, value in SMALLER.get(backbone, {}).items()}
    if task["class_path"].endswith("Detection"):
        changed |= {f"model.{option}": value for option, value in SMALLER_HEADS.items()}
    words = [word for option, value in changed.items() for word in (f"--{option}", flow(value))]
    overlay = ROOT / "configs" / "trainer" / "smoke.yaml"
    return fit.main(["--config", str(path), "--config", str(overlay), "--runs_dir", str(runs), *words, *more]).read(
        "results.json"
    )


@pytest.fixture(scope="session")
def trained_half(tiny, tmp_path_factory) -> Path:
    """A run whose weights can be probed."""
    runs = tmp_path_factory.mktemp("half")
    smoke(ROOT / "configs/fashion_mnist_perceiver_half.yaml", tiny, runs, "--trainer.enable_checkpointing", "true")
    return runs / "fashion_mnist_half" / "perceiver_half" / "seed0"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_steps_and_an_evaluation(path, tiny, tmp_path, request):
    more = []
    if yaml.safe_load(path.read_text())["model"]["init_args"].get("weights"):
        more = ["--model.weights", str(request.getfixturevalue("trained_half"))]
    results = smoke(path, tiny, tmp_path, *more)
    assert results["steps"] == 2
    for split in ("val", "test"):
        assert results["metrics"][split]["samples"] > 0
        assert math.isfinite(results["metrics"][split].get("loss", 0.0))
