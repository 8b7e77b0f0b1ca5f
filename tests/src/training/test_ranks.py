"""Ranks are real processes: DDP, FSDP and one process train alike, and each goes on from the others' checkpoints."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.multiprocessing as mp

from tests.support import ROOT, ranks

pytestmark = pytest.mark.integration

BACKBONES = ("Perceiver", "LambdaResNet", "LambdaNet")


def fork(folder: Path, world: int, *jobs: str) -> None:
    """Run jobs on ranks that are told what torchrun tells its own; forked, they need not import everything anew."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    mp.start_processes(be_rank, args=(world, port, folder, jobs), nprocs=world, start_method="fork")


def be_rank(rank: int, world: int, port: int, folder: Path, jobs: tuple[str, ...]) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    if world > 1:
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    ranks.run(folder, list(jobs))


def torchrun(folder: Path, world: int, *jobs: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += ["-m", "tests.support.ranks", str(folder), *jobs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    fork(folder, 1, "one")
    fork(folder, 2, "ddp", "fsdp", "ddp:one", "ddp:fsdp", "fsdp:one", "fsdp:ddp")
    torchrun(folder, 3, "ddp3:fsdp")  # on another number of ranks
    fork(folder, 1, "one:ddp", "one:fsdp")
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


def test_a_linear_probe_on_two_ranks_learns_what_one_process_learns(folder):
    expected, found = read(folder, "probe-one"), read(folder, "probe-ddp")
    assert set(found) >= {"top1", "ridge_top1", "loss"}
    assert found == pytest.approx(expected, rel=1e-4)  # float32
    assert "use --trainer.strategy ddp" in read(folder, "probe-fsdp")["error"]
