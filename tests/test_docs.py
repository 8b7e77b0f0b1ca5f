"""What README, CONTRIBUTING.md and docs/ say works: examples run, commands parse, links lead somewhere."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

from datamodules import Dialpad
from src.__main__ import COMMANDS
from src.fit import main as fit
from tests.support import ROOT
from tests.support.forked import invoke
from tests.support.run_folders import make_run

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
OURS = ("bytebench ", "python -m src.", "python -m datamodules.")
# Install, build and start things; what they name is checked below, and the targets of make by .ci/run
OTHERS = ("make ", "pip install ", "source ", "mkdir ", "docker ", "wandb ", "WANDB_MODE=online wandb ")
OTHERS += ("python -m build ", "twine ")
OWN_TESTS = ("add_your_backbone", "add_your_data", "declare_your_data", "stress", "weights", "CONTRIBUTING")
WITHOUT_FILES = ("digits_perceiver", "digits_ablations")  # configs and suites whose data come with a package
ENVIRONMENT = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of these languages, without the indentation that they have in a list."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.M) for indent, language, block in found if language in languages]


def console(page: Path) -> list[str]:
    """All commands of a page: lines of console blocks and indented lines, after a $."""
    text = page.read_text().replace("\\\n", " ")
    return list(dict.fromkeys(re.findall(r"^ *\$ (.*)", text, re.M)))


def commands(page: Path) -> list[list[str]]:
    """Those of this project, as words after the name of the interpreter."""
    found = [shlex.split(line) for line in console(page) if line.startswith(OURS)]
    return [["-m", "src", *words[1:]] if words[0] == "bytebench" else words[1:] for words in found]


def name_and_options(command: list[str]) -> tuple[str, list[str]]:
    """`-m src fit --a 1` and `-m src.fit --a 1` are fit with --a 1."""
    _, module, *words = command
    return (words[0], words[1:]) if module == "src" else (module.rpartition(".")[2], words)


def python(page: Path) -> str:
    """The examples of a page that belong to no file, one after another."""
    examples = "\n".join(block for block in blocks(page, "python") if not NAMED.match(block))
    return re.sub(r"\b(from|import) bytebench\b", r"\1 src", examples)  # of this checkout, installed or not


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
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
    return done.stdout


def run_forked(folder: Path, command: list[str]) -> None:
    """One of our commands, without paying for its imports again."""
    name, options = name_and_options(command)
    module = import_module("datamodules.prepare" if name == "prepare" else f"src.{name}")
    main = (lambda args: sys.exit(module.main(args))) if name == "prepare" else module.main
    outcome = invoke(main, options, folder, longest=600)
    assert outcome.status == 0, f"{' '.join(command)}\n{outcome.errors}"


def shortened(command: list[str]) -> list[str] | None:
    """A command as a test runs it: one epoch of training, a list of a suite; None if it needs files or takes minutes."""
    name, options = name_and_options(command)
    if name == "fit":
        short = any(known in word for word in options for known in WITHOUT_FILES)
        return [*command, "--trainer.max_epochs", "1"] if short else None
    if name == "tune":
        return None  # minutes; tests/test_tune.py runs one
    return [*command, "--list"] if name == "suite" else command


@pytest.mark.integration
@pytest.mark.parametrize(
    "page", [p for p in PAGES if commands(p) and p.stem not in OWN_TESTS], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run_one_after_another(page, tmp_path):
    folder = checkout(tmp_path, page)
    for cell in ("audio_only", "video_only"):
        make_run(folder / "runs" / "quickstart", cell, 0, task="multi_label")  # stands for five minutes each
    Dialpad(folder / "data" / "dialpad", clips=(8, 2, 2)).prepare_data()
    for command in filter(None, map(shortened, commands(page))):
        run_forked(folder, command)
    for suite in (name for block in blocks(page, "yaml") for name in NAMED.findall(block) if "/suites/" in name):
        assert run(folder, "-m", "src", "suite", suite, "--list").count("fit") > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_one_that_a_test_knows(page):
    text = page.read_text()
    for line in console(page):
        assert line.startswith((*OURS, *OTHERS)), line
    for name in re.findall(r"(?:`|\$ )bytebench ([a-z]+)", text):
        assert name in COMMANDS, name
    for module in re.findall(r"python -m ((?:src|datamodules)(?:\.\w+)+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    for target in re.findall(r"(?:`|\$ |^    )make ([a-z]+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_training_commands_of_a_page_have_options_that_exist(page, capsys):
    given = [name for block in blocks(page, "python", "yaml") for name in NAMED.findall(block)]
    modules = [name.removesuffix(".py").replace("/", ".") for name in given]
    for command in commands(page):
        name, options = name_and_options(command)
        written_there = any(part in word for word in options for part in (*given, *modules))
        if name == "fit" and not written_there:
            with pytest.raises(SystemExit) as ended:
                fit([*options, "--print_config"])
            assert ended.value.code == 0, command
    capsys.readouterr()


def test_readme_fits_on_two_screens_with_one_picture():
    assert README.stat().st_size <= 12_000
    assert len(re.findall(r"!\[", README.read_text())) == 1


@pytest.mark.parametrize(
    "page", [p for p in PAGES if python(p) and p.stem not in OWN_TESTS], ids=lambda page: page.stem
)
def test_the_examples_of_a_page_run_one_after_another(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(python(page), scope)
    for name, shape in re.findall(r"^ *(\w+) = .*# (\(\d+, .*\))$", python(page), re.M):
        assert scope[name].shape == eval(shape)


@pytest.mark.integration
def test_the_data_sets_of_add_your_data_are_learnt_and_shards_are_without_fault(tmp_path):
    folder = checkout(tmp_path, ROOT / "docs/add_your_data.md")
    for command in commands(ROOT / "docs/add_your_data.md"):
        run(folder, *command)
    for name, samples in (("wine/transformer", 44), ("taps/perceiver", 150)):  # recordings, not their windows
        results = json.loads((folder / f"runs/{name}/seed0/results.json").read_text())
        assert results["metrics"]["test"]["samples"] == samples
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
    assert len(commands(page)) == 3
    for command in commands(page):
        run(folder, *command, "--config", "configs/trainer/smoke.yaml")
    assert float(run(folder, "-c", python(page) + MASKED).split()[0]) > 0


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as hosting sites and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_files_of_a_page_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^):]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        file, _, anchor = link.partition("#")
        assert (page.parent / file).exists(), link
        assert not anchor or anchor in anchors(page.parent / file if file else page), link
    given = {name for block in blocks(page, "python", "yaml") for name in NAMED.findall(block)}
    for name in re.findall(r"(?:configs|tests|docker|notebooks)/[a-z0-9_/]+\.\w+", text):
        assert (ROOT / name).is_file() or name in given, name


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
