"""Triton's kernels: its interpreter runs them on the CPU, and its compiler makes them for a GPU that is not there."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch

from datamodules import ByteArray
from datamodules.core.positions import axis_features, grid_features
from src.backbones.lambda_networks.position_lambda import KERNEL, backward, forward, position_lambdas
from src.backbones.perceiver.reading import plan_read, prepare_elements, prepare_grid, read_elements
from tests.support import ROOT

pytest.importorskip("triton")
pytestmark = pytest.mark.integration  # Triton decides at its import whether to interpret: a process of its own

GRIDS = [(1, 1, 1, 1, 1), (2, 5, 7, 33, 3), (1, 3, 130, 40, 1), (2, 9, 4, 16, 15)]  # B, L, W, R, Cv
LAMBDAS = [  # B, h, k, v, u, queries, context, scope
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (1, 1)),
    (2, 2, 3, 5, 1, (4, 5), (4, 5), (3, 5)),
    (1, 4, 16, 17, 2, (5, 3), (5, 3), (7, 7)),
]


def written_out(own, lead, trail, values, mean, rstd, mask):
    """`read_grid`, score by score."""
    cells = torch.cat([values, -mean[..., None]], dim=-1)
    grid = lead[:, :, None] + trail[:, None]  # (B, L, W, R)
    ln2 = torch.log(torch.tensor(2.0, dtype=torch.float64))
    scores = rstd[..., None] * (cells @ own + grid.flatten(1, 2)) * ln2
    if mask is not None:
        scores = scores.masked_fill(~mask[..., None], -torch.inf)
    weights = scores.softmax(dim=1) * rstd[..., None]
    by_cell = weights.unflatten(1, (lead.shape[1], trail.shape[1]))
    return cells.transpose(1, 2) @ weights, by_cell.sum(dim=2), by_cell.sum(dim=1), scores.logsumexp(dim=1) / ln2


def with_gradients(function, inputs, *others):
    """All outputs, and the gradients of a weighted sum of them."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*inputs, *others)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype) for out in outputs]
    total = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
    return [*outputs, *torch.autograd.grad(total, inputs)]


def assert_close(found, wanted, tolerance, what):
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).abs().max() <= tolerance * max(1, other.abs().max()), what


def check_grid(shape, masked, dtype):
    from src.backbones.perceiver.grid_read_triton import read_grid

    batch, height, width, rows, channels = shape
    make = torch.Generator().manual_seed(0)
    sizes = [(channels + 1, rows), (height, rows), (width, rows)]
    tables = [torch.randn(batch, *size, generator=make, dtype=torch.float64) for size in sizes]
    values = torch.randn(batch, height * width, channels, generator=make, dtype=torch.float64).to(dtype)
    mean, rstd = torch.randn(2, batch, height * width, generator=make, dtype=torch.float64)
    rstd, mask = rstd.abs() + 0.5, torch.rand(batch, height * width, generator=make) > 0.5
    mask[:, -1] = True
    mask = mask if masked else None
    wanted = with_gradients(written_out, tables, values.double(), mean, rstd, mask)
    floats = [table.float() for table in tables]
    found = with_gradients(read_grid, floats, values, mean.float(), rstd.float(), mask)
    assert_close(found, wanted, 1e-5, (shape, masked, dtype))  # values are rounded before both; the rest is float32


def check_elements() -> None:
    """A byte array is read as on the general path, also where an example has no real element."""
    from src.backbones.perceiver.grid_elements import read_with_kernel

    axes = axis_features((6, 9), 8)
    values, queries = torch.randn(2, 54, 3), torch.randn(2, 5, 3 + axes.shape[1]).requires_grad_()
    mask = torch.arange(54).expand(2, -1) < torch.tensor([[30], [0]])
    array = ByteArray(values, grid_features(axes, (6, 9)), (6, 9), mask=mask, axes=axes)
    plan = plan_read(2, 54, 5, queries.shape[2], torch.float32, torch.device("cpu"))
    general = prepare_elements(values, array.positions, None, mask, plan)
    wanted = with_gradients(lambda rows: read_elements(rows, [general], plan), [queries])
    found = with_gradients(lambda rows: read_with_kernel(rows, prepare_grid(array, None, mask)), [queries])
    assert_close(found, [x.double() for x in wanted], 1e-5, "elements")


def check_lambdas(shape, dtype, tolerance):
    batch, heads, keys, depth, intra, queries, context, scope = shape
    make = torch.Generator().manual_seed(0)
    sizes = [(batch, *queries, heads, keys), (keys, intra, *scope), (batch, *context, depth, intra)]
    inputs = [torch.randn(*size, generator=make).to(dtype) for size in sizes]
    output, *gradients = with_gradients(position_lambdas, [x.double() for x in inputs])
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output).to(dtype)
    found = [forward(KERNEL, *inputs), *backward(KERNEL, weights, *inputs)]
    assert_close(found, [output, *gradients], tolerance, (shape, dtype))


def main() -> None:
    """What the process with the interpreter does."""
    for shape, masked, dtype in product(GRIDS, (False, True), (torch.float32, torch.bfloat16)):
        check_grid(shape, masked, dtype)
    check_elements()
    for shape in LAMBDAS:
        check_lambdas(shape, torch.float32, 1e-5)
        check_lambdas(shape, torch.bfloat16, 2e-2)
    print("all equal")


def test_kernels_equal_the_sums_written_out_forward_and_backward():
    command = [sys.executable, "-c", "from tests.src.backbones.test_triton_kernels import main; main()"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "all equal"), done.stderr


def test_kernels_compile_for_a_gpu_and_spill_next_to_no_registers():
    from src.backbones.lambda_networks import position_lambda_triton as lambdas
    from src.backbones.perceiver import grid_read_triton as grid
    from tests.support.compile_triton import spilled_bytes

    sizes = {"HAS_MASK": True, "BR": grid.ROWS, "BX": grid.COLUMNS, "CP": 16, "STEPS": 28}
    for kernel in (grid.forward_kernel, grid.backward_kernel):
        integers = (*sizes, "batch", "rows", "height", "width", "channels", "parts")
        types = {name: "*fp32" for name in kernel.arg_names if name not in integers}
        assert spilled_bytes(kernel, sizes, {**types, "mask": "*i8"}, num_warps=grid.WARPS) == 0
    types = dict.fromkeys(("queries", "table", "values", "output", "grad"), "*fp32")
    sizes = {"H": 4, "KP": 16, "BN": lambdas.PIXELS, "BV": lambdas.DEPTH, "BJ": lambdas.INNER, "J": 49}
    for kernel, own in (
        (lambdas.forward_kernel, {}),
        (lambdas.queries_kernel, {}),
        (lambdas.values_kernel, {"intra": 1}),
        (lambdas.table_kernel, {"depth": 16, "STEPS": 10, "BN": lambdas.CHUNK_PIXELS}),
    ):
        assert spilled_bytes(kernel, sizes | own, types, num_warps=lambdas.WARPS) <= 8
