"""README's examples run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys

from tests.support import ROOT


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_examples_of_adding_a_backbone_a_data_set_and_a_config_train_and_are_short(tmp_path):
    for folder in ("src", "datamodules"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "configs").mkdir()
    named = [block for block in code_blocks("python") + code_blocks("yaml") if re.match(r"# \S+\.(py|yaml)\n", block)]
    assert len(named) == 3
    for block in named:
        assert block.count("\n") < 30
        (tmp_path / block.split()[1]).write_text(block)
    command = [sys.executable, "-m", "src.fit", "--config", "configs/wine_bag.yaml"]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "runs/wine/bag/seed0/results.json").read_text())
    assert results["metrics"]["test"]["top1"] > 0.6


def test_the_example_of_reusing_a_datamodule_runs():
    (block,) = [block for block in code_blocks("python") if "from datamodules import Digits" in block]
    scope: dict = {}
    exec(block, scope)
    assert scope["x"].shape == (32, 64, 19)


def test_every_target_and_command_that_readme_names_exists():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z]+)`", readme)) | set(re.findall(r"^\$ make ([a-z]+)", readme, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for module in set(re.findall(r"python -m ((?:src|datamodules)[a-z_.]+)", readme)):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    for config in re.findall(r"configs/([a-z_0-9]+\.yaml)", readme):
        assert (ROOT / "configs" / config).is_file() or config == "wine_bag.yaml", config
