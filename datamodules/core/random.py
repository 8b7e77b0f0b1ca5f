"""Random numbers from the generator of one sample."""

import torch
from torch import Tensor


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A float between low and high."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def randint(count: int, generator: torch.Generator) -> int:
    """An integer from 0 to count - 1."""
    return int(torch.randint(count, (), generator=generator))


def random_seed(generator: torch.Generator) -> Tensor:
    """A 63-bit seed: () int64."""
    return torch.randint(2**63 - 1, (), generator=generator)
