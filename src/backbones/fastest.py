"""On a GPU, the fastest of several exact ways: each is checked against the first and timed once on the shape at hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from time import perf_counter

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Ways = Mapping[str, Callable[[], Sequence[Tensor]]]
TRIALS = 3
chosen: dict[Hashable, str] = {}  # what was found so far in this process


def fastest(key: Hashable, make_ways: Callable[[], Ways], tolerance: float) -> str:
    """The name of the fastest way to compute the same.

    Args:
        key: the computation, its shapes, types and device.
        make_ways: is called for a new key, and gives functions by name that return outputs and gradients, computed from the
            same inputs; the first is the reference.
        tolerance: largest difference from the reference, relative to its largest value.

    Returns:
        A name of one of the ways. One that fails, or differs by more than the tolerance, is left out with a warning.
    """
    if key not in chosen:
        chosen[key] = race(make_ways(), tolerance)
    return chosen[key]


def race(ways: Ways, tolerance: float) -> str:
    """See `fastest`."""
    reference: Sequence[Tensor] = ()
    seconds: dict[str, float] = {}
    for name, way in ways.items():
        try:
            found = way()
            reference = reference or found
            for one, other in zip(found, reference, strict=True):
                if not (worst := difference(one, other)) <= tolerance:  # NaN, too
                    raise ArithmeticError(f"it differs by {worst:.1e}")
            seconds[name] = min(timed(way) for _ in range(TRIALS))
        except Exception as error:  # compilers and drivers fail in many ways; the reference then does the work
            if not reference:
                raise
            log.warning("%s is not used: %s", name, (str(error).splitlines() or [type(error).__name__])[0])
    return min(seconds, key=seconds.__getitem__)


def difference(found: Tensor, reference: Tensor) -> float:
    """The largest difference, relative to the largest value of the reference."""
    wide = reference.detach().double()
    return float((found.detach().double() - wide).abs().max() / wide.abs().max().clamp(min=1e-30))


def timed(way: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    synchronise()
    start = perf_counter()
    way()
    synchronise()
    return perf_counter() - start


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
