"""Where a run takes place: commit, packages, hardware, and the memory that it took."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import torch

from ..config.package import CHECKOUT
from ..config.secrets import redacted_command
from .identity import CODE
from .results import Memory


def environment() -> dict:
    """Where a run takes place: all that may change its numbers. An image has no git: BYTEBENCH_COMMIT tells."""
    return {
        "command": redacted_command([sys.executable.rpartition("/")[2], *sys.orig_argv[1:]]),
        "git": {
            "commit": git("rev-parse", "HEAD") or os.environ.get("BYTEBENCH_COMMIT") or None,
            "dirty": dirty(),
        },
        "code": CODE,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "torch": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        },
        "packages": {d.name: d.version for d in sorted(distributions(), key=lambda d: d.name.lower())},
    }


def dirty() -> bool | None:
    """Whether the checkout has changes that a run may notice: to files that git knows, or new files in the packages and
    configs. Runs, W&B's files and other outputs lie elsewhere. None outside of a checkout."""
    changes = git("status", "--porcelain")
    if changes is None:
        return None
    code = ("?? src/", "?? datamodules/", "?? configs/")
    return any(not line.startswith("?? ") or line.startswith(code) for line in changes.splitlines())


def git(*args: str) -> str | None:
    """What git says of this checkout; None outside one, or without git."""
    if CHECKOUT is None or shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", CHECKOUT, *args], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_memory() -> Memory:
    """The most memory held so far: of the GPU's allocator if one is used, else of this process (data included)."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"bytes": torch.cuda.max_memory_allocated(), "of": "GPU tensors"}
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "of": "process"}
