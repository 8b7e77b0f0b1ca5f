"""On a GPU, the fastest of several exact ways: each is checked against the first and timed once on the shape at hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Way = Callable[..., Tensor]
TRIALS = 3
chosen: dict[tuple, str] = {}  # what was found so far: by name of the computation, shapes, type and device


def fastest(name: str, ways: Mapping[str, Way], inputs: Sequence[Tensor], tolerance: float) -> str:
    """The name of the fastest way to compute the same, forward and backward.

    Args:
        name: of the computation.
        ways: functions of the inputs by name; the first is the reference.
        inputs: tensors on one device.
        tolerance: largest difference from the reference, relative to its largest value, in outputs and gradients.

    Returns:
        A key of `ways`. A way that fails, or differs by more than the tolerance, is left out with a warning. It is
        remembered for inputs of these shapes and types, while the process lives.
    """
    key = (name, *((tuple(x.shape), x.dtype, x.device, x.requires_grad) for x in inputs))
    if key not in chosen:
        chosen[key] = next(iter(ways)) if len(ways) == 1 else race(name, ways, inputs, tolerance)
    return chosen[key]


def race(name: str, ways: Mapping[str, Way], inputs: Sequence[Tensor], tolerance: float) -> str:
    """See `fastest`."""
    reference: list[Tensor] = []
    seconds: dict[str, float] = {}
    for label, way in ways.items():
        try:
            found = step(way, inputs)
            if not reference:
                reference = found
            worst = max(
                float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))
                for one, other in zip(found, reference, strict=True)
            )
            if not worst <= tolerance:
                raise ArithmeticError(f"it differs by {worst:.1e}")
            seconds[label] = min(timed(way, inputs) for _ in range(TRIALS))
        except Exception as error:  # compilers and drivers fail in many ways; the reference then does the work
            if not reference:
                raise
            log.warning("%s: %s is not used: %s", name, label, str(error).splitlines()[:1])
    return min(seconds, key=seconds.__getitem__)


def step(way: Way, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its mean square, in float32."""
    with torch.enable_grad():
        own = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
        output = way(*own)
        asked = [x for x in own if x.requires_grad]
        gradients = torch.autograd.grad(output.float().square().mean(), asked) if asked else ()
    return [x.detach().float() for x in (output, *gradients)]


def timed(way: Way, inputs: Sequence[Tensor]) -> float:
    """Seconds of a step."""
    on_gpu = inputs[0].device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    start = perf_counter()
    step(way, inputs)
    if on_gpu:
        torch.cuda.synchronize()
    return perf_counter() - start
