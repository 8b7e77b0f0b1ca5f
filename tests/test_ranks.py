"""Ranks are real processes: DDP, FSDP and one process train alike, and each goes on from the others' checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BACKBONES = ("Perceiver", "LambdaResNet", "LambdaNet")


def run_jobs(folder: Path, ranks: int, *jobs: str) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)) if ranks > 1 else ()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *torchrun, str(ROOT / "tests" / "ranks.py"), str(folder), *jobs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_jobs(folder, 1, "one")
    run_jobs(folder, 2, "ddp", "fsdp", "ddp:one", "ddp:fsdp", "fsdp:one", "fsdp:ddp")
    run_jobs(folder, 3, "ddp3:fsdp")  # on another number of ranks
    run_jobs(folder, 1, "one:ddp", "one:fsdp")
    return folder


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_as_one_process_does(folder, backbone, strategy):
    expected, found = read(folder, f"{backbone}-one"), read(folder, f"{backbone}-{strategy}")
    assert len(found["losses"]) == 6
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-10, abs=0)
    assert found["losses"][0] != pytest.approx(found["losses"][-1], rel=1e-3)  # it moves
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-10, abs=0)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("strategy", "start"),
    [(a, b) for a in ("one", "ddp", "fsdp") for b in ("one", "ddp", "fsdp") if a != b] + [("ddp3", "fsdp")],
)
def test_a_checkpoint_goes_on_under_another_strategy_and_number_of_ranks(folder, backbone, strategy, start):
    expected = read(folder, f"{backbone}-one")
    found = read(folder, f"{backbone}-{strategy}-from-{start}")
    assert found["losses"] == pytest.approx(expected["losses"][3:], rel=1e-10, abs=0)
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-10, abs=0)
