"""The image as far as it can be tried without an engine: the Dockerfile is linted, its script runs in a scratch folder."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.integration

DOCKERFILE = ROOT / "docker/Dockerfile"
CUDA_ONLY = ("nvidia-cu", "nvidia-nccl", "nvidia-nv", "cuda-", "triton", "easypytorch3d")


def instructions() -> list[tuple[str, str]]:
    """Every instruction of the Dockerfile with its arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


def locked() -> set[str]:
    return set(re.findall(r"^[A-Za-z0-9._-]+==[^ ]+", (ROOT / "requirements.lock").read_text(), re.M))


def installed(venv: Path) -> set[str]:
    command = [venv / "bin/uv", "pip", "freeze", "--python", venv / "bin/python"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def install(folder: Path, device: str, **environment: str) -> subprocess.CompletedProcess:
    """What the image's first RUN does: lock and script copied into one folder, the script run there."""
    for source in ("requirements.lock", "docker/install.sh"):
        shutil.copy(ROOT / source, folder)
    path = f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"  # as in the image, python3 is no venv's
    return subprocess.run(
        ["./install.sh", device, "venv"],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_hadolint_has_nothing_to_object_to():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_exists_and_is_not_ignored():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for source in [s for name, words in instructions() if name == "COPY" for s in words.split()[:-1]]:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(source, pattern) for pattern in ignored), source
    for kept in (
        "src/fit.py",
        "datamodules/core/datamodule.py",
        "configs/quickstart.yaml",
        "requirements.lock",
        "pyproject.toml",
    ):
        assert not any(fnmatch(kept, pattern) for pattern in ignored), kept
    for left_out in ("data", "runs", ".git", ".venv"):
        assert left_out in ignored


def test_sources_are_copied_after_the_packages_and_the_user_is_not_root():
    steps = instructions()
    lock, packages, sources = (
        next(i for i, (name, words) in enumerate(steps) if name == kind and start in words)
        for kind, start in (("COPY", "requirements.lock"), ("RUN", "install.sh"), ("COPY", ". ."))
    )
    assert lock < packages < sources
    assert [words for name, words in steps if name == "USER"][-1] not in ("root", "0")
    assert os.access(ROOT / "docker/install.sh", os.X_OK)
    # the same Python as the lock was made for
    assert dict(steps)["FROM"] == "python:3.11-slim"


def test_the_image_for_gpus_holds_exactly_the_lock(tmp_path):
    done = install(tmp_path, "cuda")
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "venv") == locked()


def test_the_default_command_prints_help_without_home_git_or_environment(tmp_path):
    environment = {"HOME": str(tmp_path), "USER": "bytebench", "PATH": str(Path(sys.executable).parent)}
    command = re.findall(r'"([^"]+)"', dict(instructions())["CMD"])
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert shown.returncode == 0, shown.stderr
    assert "--resume" in shown.stdout


def test_the_image_for_cpus_holds_what_needs_no_cuda_and_asks_for_the_locks_torch(tmp_path):
    """Its last step asks PyTorch's index, which is out of reach here: offline, that step alone fails."""
    done = install(tmp_path, "cpu", UV_OFFLINE="1")
    assert done.returncode != 0
    assert "torch" in done.stderr
    torch = set((tmp_path / "venv/torch.txt").read_text().split())
    assert {name.partition("==")[0] for name in torch} == {"torch", "torchaudio", "torchvision"}
    left_out = {name for name in locked() if name.startswith(CUDA_ONLY)}
    assert torch < locked()
    assert installed(tmp_path / "venv") == locked() - torch - left_out


def test_another_device_is_refused(tmp_path):
    done = install(tmp_path, "tpu")
    assert done.returncode == 2
    assert "give cuda or cpu" in done.stderr


@pytest.mark.parametrize("commit", ["0123abc", None])
def test_a_run_in_an_image_without_git_records_the_images_commit(commit, monkeypatch):
    from src.runs.environment import environment

    monkeypatch.setenv("PATH", "/nowhere")
    if commit:
        monkeypatch.setenv("BYTEBENCH_COMMIT", commit)
    assert environment()["git"] == {"commit": commit, "dirty": None}
