"""`datamodules` installs alone, beside another project's own `src`; environment.yml repeats nothing of pyproject.toml."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from tests.support import ROOT

SCRIPT = """
import src
import datamodules
from datamodules import ByteArray, Digits
assert src.VALUE == 1
print(datamodules.__file__, Digits().spec.num_classes, ByteArray.__name__)
"""


def test_datamodules_install_into_a_project_with_its_own_src(tmp_path):
    copy, site, project = tmp_path / "copy", tmp_path / "site", tmp_path / "project"
    shutil.copytree(ROOT / "datamodules", copy / "datamodules", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "README.md").touch()
    (project / "src").mkdir(parents=True)
    (project / "src" / "__init__.py").write_text("VALUE = 1\n")
    (project / "main.py").write_text(SCRIPT)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", site, copy], check=True, timeout=600)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        [sys.executable, "main.py"], cwd=project, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    path, classes, name = run.stdout.split()
    assert Path(path).is_relative_to(site)
    assert (classes, name) == ("10", "ByteArray")
    assert not (site / "src").exists()


def name_of(requirement: str) -> str:
    """The package's normalised name: `jsonargparse[signatures]>=4.53` is jsonargparse."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0]).lower()


def test_environment_names_nothing_that_pyproject_owns():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    owned = {name_of(r) for requirements in (project["dependencies"], *extras) for r in requirements}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = [line for entry in environment["dependencies"] if isinstance(entry, dict) for line in entry["pip"]]
    assert not {re.split(r"[\s=<>!]", entry.split("::")[-1])[0].lower() for entry in conda} & owned
    assert pip == ["-e .[dev]"]  # all else comes from pyproject.toml
