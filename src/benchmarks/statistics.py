"""The statistics of comparisons, on simulated runs whose truth is known: how often intervals hold it, how often equal
variants are called different, and how often a difference is found.

A sample is right where a normal variable lies below a threshold. The variable is a sum: how hard the cluster and the sample
are, for all variants; what a variant makes of the cluster and of the sample; and chance, for each run. The threshold gives
the run's accuracy: its variant's, plus a normal error of training with the spread of seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
from scipy.special import ndtri, stdtrit

from ..stats.intervals import LEVEL, guarded, squares_of
from ..stats.moderation import moderate
from ..stats.verdicts import holm
from .measure import save

SAMPLES, SEEDS, SPREADS, CLUSTERS, ACCURACIES = 1000, (3, 5, 10), (0.0, 0.01, 0.02, 0.04), (1, 5, 20), (0.6, 0.75, 0.9)
EQUAL, DIFFERENCE = 14, 0.02
SHARES = {"cluster": 0.2, "sample": 0.3, "variant's cluster": 0.15, "variant's sample": 0.1, "run": 0.25}
AT_ONCE = 4_000_000  # numbers in memory


def run(rounds: int = 4000) -> None:
    """Writes results/statistics_HARDWARE.csv.

    Args:
        rounds: simulated tables of two variants for each case; a tenth as many of 14 variants.
    """
    rows = [row for size, accuracy in product(CLUSTERS, ACCURACIES) for row in coverage(rounds, size, accuracy)]
    rows += [row for size in (1, 20) for row in family(max(rounds // 10, 1), size)]
    save([*rows, *power(rounds)], "statistics")


def coverage(rounds: int, size: int, accuracy: float) -> Iterator[dict]:
    """How often the interval of the difference of two equal variants holds 0, beside those over samples or seeds alone."""
    held: dict[tuple, list] = {(spread, seeds): [] for spread in SPREADS for seeds in SEEDS}
    for table in tables(rounds, 2, size):
        for spread in SPREADS:
            scores = table(accuracy, spread)
            for seeds in SEEDS:
                difference = scores[:, 0, :seeds] - scores[:, 1, :seeds]
                found, mean = squares_of(difference), np.abs(difference.mean((-2, -1)))
                samples = np.sqrt(found.of_clusters / (seeds * found.clusters)) * stdtrit(found.clusters - 1, 0.975)
                trained = np.sqrt(found.of_seeds / (seeds * found.clusters)) * stdtrit(seeds - 1, 0.975)
                held[spread, seeds].append([mean <= half for half in (found.half_width(), samples, trained)])
    for (spread, seeds), found in held.items():
        both, samples, trained = np.concatenate(found, axis=1).mean(axis=1)
        case = {
            "measure": "coverage",
            "seed_spread": spread,
            "seeds": seeds,
            "cluster_size": size,
            "accuracy": accuracy,
        }
        yield case | {"rounds": rounds, "share": both, "over_samples_alone": samples, "over_seeds_alone": trained}


def family(rounds: int, size: int, accuracy: float = 0.75) -> Iterator[dict]:
    """Of 14 variants of equal accuracy: how often a pair is called different, with Holm's correction and moderated spreads of
    seeds, and without. In the last case, half of the variants have a spread of half a point, the others of four."""
    first, second = np.triu_indices(EQUAL, 1)
    unlike = np.where(np.arange(EQUAL) < EQUAL // 2, 0.005, 0.04)[:, None]
    cases = {"0.0": 0.0, "0.02": 0.02, "0.04": 0.04, "0.005 and 0.04": unlike}
    for (spread, spreads), seeds in product(cases.items(), SEEDS):
        wrong = []
        for table in tables(rounds, EQUAL, size, seeds):
            for scores in table(accuracy, spreads):
                difference = scores[first] - scores[second]
                found, distance = squares_of(difference), np.abs(difference.mean((-2, -1)))
                freedom = np.full(len(first), seeds - 1.0)
                value, own = moderate(found.of_seeds, freedom, (EQUAL - 1) * freedom)
                borrowing = replace(found, of_seeds=value, seed_freedom=own).p_above(distance)
                plain = 2 * found.p_above(distance)
                corrected = holm(2 * guarded(plain / 2, borrowing))
                wrong.append([p.min() <= 1 - LEVEL for p in (corrected, plain, holm(plain))])
        corrected, alone, own_spread = np.mean(wrong, axis=0)
        case = {"measure": "family-wise error", "seed_spread": spread, "seeds": seeds, "cluster_size": size}
        case |= {"accuracy": accuracy, "rounds": rounds, "share": corrected, "without_correction": alone}
        yield case | {"without_moderation": own_spread}


def power(rounds: int, accuracy: float = 0.75, spread: float = 0.01) -> Iterator[dict]:
    """How often a true difference of two points is found between two variants."""
    found: dict[int, list] = {seeds: [] for seeds in SEEDS}
    for table in tables(rounds, 2, 1):
        scores = table(np.array([accuracy + DIFFERENCE, accuracy])[:, None], spread)
        for seeds in SEEDS:
            difference = scores[:, 0, :seeds] - scores[:, 1, :seeds]
            found[seeds].append(difference.mean((-2, -1)) > squares_of(difference).half_width())
    for seeds, better in found.items():
        case = {"measure": "power at 2 points", "seed_spread": spread, "seeds": seeds, "cluster_size": 1}
        yield case | {"accuracy": accuracy, "rounds": rounds, "share": np.concatenate(better).mean()}


def tables(rounds: int, variants: int, size: int, seeds: int = SEEDS[-1]) -> Iterator[Callable[..., np.ndarray]]:
    """Simulated tables, some at once: functions from accuracy and spread of seeds to scores (rounds, variants, seeds,
    clusters)."""
    generator = np.random.default_rng([variants, size, seeds])
    clusters = SAMPLES // size
    shapes = {
        "cluster": (1, 1, clusters, 1),
        "sample": (1, 1, clusters, size),
        "variant's cluster": (variants, 1, clusters, 1),
        "variant's sample": (variants, 1, clusters, size),
        "run": (variants, seeds, clusters, size),
    }
    step = max(1, AT_ONCE // (variants * seeds * SAMPLES))
    for start in range(0, rounds, step):
        count = min(step, rounds - start)
        value = np.zeros((1, 1, 1, 1, 1), np.float32)
        for name, shape in shapes.items():
            value = value + np.float32(SHARES[name] ** 0.5) * generator.standard_normal((count, *shape), np.float32)
        errors = generator.standard_normal((count, variants, seeds))
        yield partial(scores, value, errors)


def scores(
    value: np.ndarray, errors: np.ndarray, accuracy: float | np.ndarray, spread: float | np.ndarray
) -> np.ndarray:
    """The share of right samples in every cluster."""
    threshold = ndtri(np.clip(accuracy + spread * errors, 0.001, 0.999)).astype(np.float32)
    return (value < threshold[..., None, None]).mean(-1)
