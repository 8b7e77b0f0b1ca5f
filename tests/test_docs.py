"""What README and docs/ say works: examples run, commands parse, links lead somewhere."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

from src.fit import main as fit
from tests.support import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
ENVIRONMENT = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)
    return [block for language, block in found if language in languages]


def commands(page: Path) -> list[str]:
    """All `python -m` of a page, in console blocks, indented or in the text."""
    lines = page.read_text().replace("\\\n", " ").splitlines()
    return [found[1] for line in lines if (found := re.match(r"(?:\$ | {4})(python -m .*)", line))]


def checkout(folder: Path, page: Path) -> Path:
    """A copy of the sources with the files that a page gives; those of one name are parts of one file."""
    for name in ("src", "datamodules", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    written: dict[str, str] = {}
    for block in blocks(page, "python", "yaml"):
        if named := NAMED.match(block):
            written[named[1]] = written.get(named[1], "") + block
    for name, text in written.items():
        (folder / name).write_text(text)
    return folder


def run(folder: Path, *words: str) -> str:
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readmes_backbone_data_set_and_config_are_short_and_train(tmp_path):
    named = [block for block in blocks(README, "python", "yaml") if NAMED.match(block)]
    assert len(named) == 3
    assert all(block.count("\n") < 30 for block in named)
    folder = checkout(tmp_path, README)
    run(folder, "-m", "src.fit", "--config", "configs/wine_bag.yaml")
    results = json.loads((folder / "runs/wine/bag/seed0/results.json").read_text())
    assert results["metrics"]["test"]["top1"] > 0.6


@pytest.mark.integration
def test_the_data_set_of_add_your_data_is_written_linted_and_learnt(tmp_path):
    folder = checkout(tmp_path, ROOT / "docs/add_your_data.md")
    for command in commands(ROOT / "docs/add_your_data.md"):
        run(folder, *shlex.split(command)[1:])
    results = json.loads((folder / "runs/taps/perceiver/seed0/results.json").read_text())
    assert results["metrics"]["test"]["samples"] == 150  # recordings, not their windows
    assert results["metrics"]["test"]["top1"] > 0.6


MASKED = """
import torch
from dataclasses import replace
from datamodules import DataSpec, ModalitySpec
from src.backbones.pooling import Pooling

spec = DataSpec({"points": ModalitySpec(3, 9, 20, None, 3)}, "single_label", ("a", "b"))
model, array = Pooling(spec), spec.example_inputs(2)["points"]
mask = torch.arange(20).expand(2, 20) < 15
others = array.values.masked_fill(~mask[..., None], 7)
same = [model({"points": replace(array, values=values, mask=mask)}) for values in (array.values, others)]
assert torch.equal(*same)
permuted = replace(array, mask=mask).permute(torch.randperm(20))
assert torch.allclose(same[0], model({"points": permuted}), atol=1e-5)
"""


@pytest.mark.integration
def test_the_backbones_of_add_your_backbone_train_ignore_what_is_masked_and_carry_detection(tmp_path):
    page = ROOT / "docs/add_your_backbone.md"
    folder = checkout(tmp_path, page)
    first, *_ = commands(page)
    run(folder, *shlex.split(first)[1:], "--config", "configs/trainer/smoke.yaml")
    (example,) = [block for block in blocks(page, "python") if not NAMED.match(block)]
    assert float(run(folder, "-c", example + MASKED).split()[0]) > 0


def test_the_examples_of_reuse_datamodules_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks(ROOT / "docs/reuse_datamodules.md", "python")), {})
    (of_readme,) = [block for block in blocks(README, "python") if "from datamodules import Digits" in block]
    scope: dict = {}
    exec(of_readme, scope)
    assert scope["x"].shape == (32, 64, 19)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_commands_and_files_of_a_page_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        assert (page.parent / link).exists(), link
    for module in re.findall(r"python -m ((?:src|datamodules)(?:\.\w+)+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    given = {name for block in blocks(page, "python", "yaml") for name in NAMED.findall(block)}
    for name in re.findall(r"(?:configs|tests|docker|notebooks)/[a-z0-9_/]+\.\w+", text):
        assert (ROOT / name).is_file() or name in given, name
    for target in re.findall(r"(?:`|^\$ )make ([a-z]+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_training_commands_of_a_page_have_options_that_exist(page, capsys):
    for command in commands(page):
        module, *options = shlex.split(command)[2:]
        known = all((ROOT / name).is_file() for name in re.findall(r"configs/\S+", command))
        if module == "src.fit" and known and "src.backbones.pooling" not in command:
            with pytest.raises(SystemExit) as ended:
                fit([*options, "--print_config"])
            assert ended.value.code == 0, command
    capsys.readouterr()


@pytest.mark.integration
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_what_wandbs_agent_makes_of_a_sweep_trains_as_a_cell_of_its_own(path, tmp_path):
    """W&B's own functions make the command; it runs as the agent runs it, with the run's name in the environment."""
    sweep = yaml.safe_load(path.read_text())
    chosen = {name: {"value": p["values"][0] if "values" in p else p["min"]} for name, p in sweep["parameters"].items()}
    filled = {**wandb_sweeps.create_sweep_command_args({"args": chosen}), "env": ["/usr/bin/env"]}
    command = []
    for word in wandb_sweeps.create_sweep_command(sweep["command"]):
        command += filled[word[2:-1]] if re.fullmatch(r"\$\{\w+\}", word) else [word]
    command += ["--config", "configs/trainer/smoke.yaml", "--runs_dir", str(tmp_path)]
    environment = {
        **ENVIRONMENT,
        "WANDB_RUN_ID": "abc123",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("*/abc123/seed0")
    assert json.loads((folder / "environment.json").read_text())["wandb_id"] == "abc123"
    assert sweep["metric"]["name"].startswith("val/")  # never chosen on the test split
    config = (folder / "config.yaml").read_text()
    for name, value in chosen.items():
        assert f"{name.rpartition('.')[2]}: {value['value']}" in config
