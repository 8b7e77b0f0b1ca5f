"""A comparison in W&B, from a process that has imported nothing else."""

import os
import subprocess
import sys

from tests.support import ROOT
from tests.support.run_folders import make_run


def test_a_new_process_logs_tables_charts_and_page(tmp_path):
    for variant in ("one", "two"):
        make_run(tmp_path / "runs", variant, 0)
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "src", "compare", "runs", "--wandb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    media = {path.suffix for path in tmp_path.rglob("files/media/*/**/*") if path.is_file()}
    assert media >= {".json", ".png", ".html"}
