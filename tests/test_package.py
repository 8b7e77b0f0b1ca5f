"""The wheel installs beside another project's own `src`; environment.yml repeats nothing of pyproject.toml."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT

SCRIPT = """
import src
from bytebench import fit
from bytebench.backbones import LambdaLayer
from datamodules import ByteArray, Digits
assert src.VALUE == 1
assert LambdaLayer.__module__.startswith("bytebench.")
assert Digits().spec.num_classes == 10
run = fit("digits_perceiver", options={"trainer.max_epochs": 1, "model.backbone.class_path": "src.backbones.Perceiver"})
print(type(run).__module__, run.config()["model"]["init_args"]["backbone"]["class_path"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from what git has, as a release is."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "results/")):
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "copy" / name).write_bytes((ROOT / name).read_bytes())
    uv = [Path(sys.executable).parent / "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
    subprocess.run([*uv, "--out-dir", folder, folder / "copy"], check=True, timeout=600)
    assert len(list(folder.glob("bytebench-*.tar.gz"))) == 1
    return next(folder.glob("bytebench-*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(site: Path, folder: Path, *words: str) -> str:
    """What a Python command prints that finds the wheel's packages and not this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_our_packages_configs_and_licence_and_no_src(site):
    assert {path.name for path in site.iterdir() if "dist-info" not in path.name} == {"bytebench", "datamodules"}
    shipped = {path.relative_to(site / "bytebench") for path in (site / "bytebench" / "configs").rglob("*.*")}
    assert shipped == {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.*")}
    modules = {path.relative_to(site / "bytebench") for path in (site / "bytebench").rglob("*.py*")}
    assert modules == {
        path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*.py*") if path.suffix != ".pyc"
    }
    assert next(site.glob("*.dist-info/licenses/LICENSE")).read_text().strip().startswith("Apache License")


def test_a_run_of_another_project_with_its_own_src(site, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / "main.py").write_text(SCRIPT)
    assert run(site, tmp_path, "main.py").splitlines()[-1] == "bytebench.runs.folder bytebench.backbones.Perceiver"


def test_the_command_trains_compares_and_names_itself(site, tmp_path):
    options = ["--config", "configs/digits_perceiver.yaml", "--trainer.max_epochs", "1"]
    run(site, tmp_path, "-m", "bytebench", "fit", *options)
    again = run(ROOT, ROOT, "-m", "src.compare", str(tmp_path / "runs"))
    compared = run(site, tmp_path, "-m", "bytebench", "compare", "runs")
    assert compared.split() == again.replace(f"{tmp_path}/", "").split()
    assert "usage: bytebench fit" in run(site, tmp_path, "-m", "bytebench", "fit", "--help")
    listed = run(site, tmp_path, "-m", "bytebench", "suite", "digits_ablations", "--list")
    assert "bytebench fit --variant digits_ablations/" in listed


def test_a_package_of_an_extra_that_is_not_installed_is_told_with_the_extra(site, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass Absent:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'soundfile':\n            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{site}"}
    command = [sys.executable, "-m", "bytebench", "prepare", "language_id"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: soundfile is not installed: `pip install 'bytebench[audio]'`\n",
    )


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
