"""Batch normalisation of real elements: on two processes the statistics are those of one with all examples."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from src.backbones import LambdaLayer
from src.training.batch_norm import synchronise_batch_norms

EXAMPLES, SIDE = 6, 4


def joint_batch() -> tuple[Tensor, Tensor]:
    """Examples (B, C, 4, 4) and masks: the first half has few real elements, the other nearly all."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(EXAMPLES, 6, SIDE, SIDE, generator=generator, dtype=torch.float64)
    x[: EXAMPLES // 2] += 5
    shares = torch.tensor([0.2] * (EXAMPLES // 2) + [0.9] * (EXAMPLES // 2))[:, None, None]
    return x, torch.rand(EXAMPLES, SIDE, SIDE, generator=generator) < shares


def outcome(rows: slice) -> dict[str, Tensor]:
    """Outputs of some examples, gradients of their loss, and the running statistics after two steps in training."""
    torch.manual_seed(0)
    layer = LambdaLayer(6, 8, key_depth=3, heads=2, scope=(3, 3)).double()
    synchronise_batch_norms(layer)
    x, mask = (each[rows] for each in joint_batch())
    layer(x.masked_fill(~mask[:, None], 0), mask=mask)
    y = layer(x.masked_fill(~mask[:, None], float("nan")), mask=mask)
    y.movedim(1, -1)[mask].square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"outputs": y.detach().movedim(1, -1)[mask], **gradients, **dict(layer.named_buffers())}


def be_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    share = EXAMPLES // world
    torch.save(outcome(slice(rank * share, (rank + 1) * share)), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.integration
def test_two_ranks_normalise_real_elements_as_one_process_with_all_examples(tmp_path):
    mp.start_processes(be_rank, args=(2, tmp_path), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    wanted = outcome(slice(None))
    together = torch.cat([found.pop("outputs") for found in ranks])
    torch.testing.assert_close(together, wanted.pop("outputs"), rtol=1e-12, atol=1e-12)
    for name, value in wanted.items():
        if "running" in name or "batches" in name:
            for found in ranks:
                torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)
        else:  # the loss is a sum over examples, so gradients add up
            torch.testing.assert_close(ranks[0][name] + ranks[1][name], value, rtol=1e-10, atol=1e-10)
