"""Measures a trained model under every condition, in one pass over the test split: each batch is decoded once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules import Batch, ByteArray, UserError
from datamodules.core.datamodule import CompactBatches, SplitName
from datamodules.core.order import SampleRef, hashed_seed
from datamodules.core.progress import track
from datamodules.core.windows import sample_of

from ..metrics.calibration import calibration, fitted_temperature
from ..metrics.classification import ScoreMetrics
from ..metrics.registry import main_metric, metric_named
from .corruptions import Corruption, corruptions_of, without

Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Condition:
    """What the inputs are put through.

    Attributes:
        name: of a corruption, or `missing`; `clean` for the inputs as they are.
        modalities: the damaged or missing ones.
        level: 1 to 5; 0 for clean inputs and missing modalities.
        corruption: None for clean inputs and missing modalities.
    """

    name: str
    modalities: tuple[str, ...] = ()
    level: int = 0
    corruption: Corruption | None = None


CLEAN = Condition("clean")


def conditions_of(data: Any) -> list[Condition]:
    """Clean inputs, every proper subset of the modalities missing, and the five levels of all corruptions that fit."""
    names = list(data.spec.modalities)
    found = [CLEAN]
    for size in range(1, len(names)):
        found += [Condition("missing", gone) for gone in itertools.combinations(names, size)]
    for name in names:
        for corruption in corruptions_of(data.spec.modalities[name], data.flatten.modalities[name]):
            found += [Condition(corruption.name, (name,), level, corruption) for level in range(1, 6)]
    return found


def measure(cli: Any, samples: int = 0) -> dict[str, Any]:
    """The record of stress.json: metrics under every condition with differences from clean inputs, and calibration.

    Args:
        cli: of a loaded run: its model, data and trainer.
        samples: of the test split, spread evenly, on which all conditions are measured; 0 for all.

    Raises:
        UserError: the task gives no scores for whole examples.
    """
    task, data = cli.model, cli.datamodule
    if not isinstance(task.test_metrics, ScoreMetrics):
        raise UserError(f"--stress measures classification and regression, not {type(task).__name__}")
    data.prepare_data()
    keys = data.split("test").keys
    rows = spread_evenly(keys, samples)
    found = score(cli, "test", conditions_of(data), rows)
    clean = values(found[CLEAN])
    name = main_metric(clean)
    assert name is not None
    counts = {"samples": len(found[CLEAN].predictions()["key"]), "of": len(set(map(sample_of, keys)))}
    record: dict[str, Any] = {"metric": name, **counts, "clean": clean, "conditions": []}
    parts = {condition: contributions(metrics, name) for condition, metrics in found.items()}
    for condition, metrics in found.items():
        if condition is not CLEAN:
            amount = None if condition.corruption is None else condition.corruption.amounts[condition.level - 1]
            record["conditions"].append(
                {
                    "name": condition.name,
                    "modalities": list(condition.modalities),
                    "level": condition.level,
                    "amount": amount,
                    "unit": None if condition.corruption is None else condition.corruption.unit,
                    "metrics": values(metrics),
                    "difference": difference(parts[condition], parts[CLEAN]),
                }
            )
    if data.spec.task in ("single_label", "multi_label"):
        record["calibration"] = calibrations(cli, found)
    return record


def calibrations(cli: Any, found: dict[Condition, ScoreMetrics]) -> dict[str, Any]:
    """Calibration on clean inputs, with and without a temperature fitted on val, and under the hardest level of each kind."""
    val = range(len(cli.datamodule.split("val").keys))
    temperature = fitted_temperature(*on_cpu(score(cli, "val", [CLEAN], val)[CLEAN]))
    scores, target = on_cpu(found[CLEAN])
    hardest = {
        f"{condition.name}, {' + '.join(condition.modalities)}": calibration(*on_cpu(kept))
        for condition, kept in found.items()
        if condition.level in (0, 5) and condition is not CLEAN
    }
    return {
        "clean": calibration(scores, target),
        "temperature": temperature,
        "with_temperature": calibration(scores / temperature, target),
        "hardest": hardest,
    }


def spread_evenly(keys: Sequence[str], count: int) -> Sequence[int]:
    """The rows of at most `count` samples, with all their windows, spread evenly over a split; all rows for 0."""
    names = list(dict.fromkeys(map(sample_of, keys)))
    if not 0 < count < len(names):
        return range(len(keys))
    chosen = {names[number * len(names) // count] for number in range(count)}
    return [row for row, key in enumerate(keys) if sample_of(key) in chosen]


def batches_of(data: Any, split: SplitName, rows: Sequence[int]) -> DataLoader:
    """A loader of these rows of a split, as they are in evaluation."""
    source = data.split(split)
    source.open()
    refs = [SampleRef(row, epoch=0, real=True) for row in rows]
    steps = [refs[start : start + data.batch_size] for start in range(0, len(refs), data.batch_size)]
    batches = CompactBatches(source, data.seed, data.on_bad_sample)
    return DataLoader(batches, batch_size=None, sampler=steps, num_workers=data.num_workers)  # pyrefly: ignore


def score(
    cli: Any, split: SplitName, conditions: Sequence[Condition], rows: Sequence[int]
) -> dict[Condition, ScoreMetrics]:
    """The model's scores on rows of a split under every condition, kept by metrics of the task's kind."""
    task, data = cli.model, cli.datamodule
    device = cli.trainer.strategy.root_device
    found = {condition: deepcopy(task.test_metrics) for condition in conditions}
    for metrics in found.values():
        metrics.reset()
    task.to(device).eval()
    loader = batches_of(data, split, rows)
    what = f"{split} split, {len(conditions)} condition{'s' if len(conditions) > 1 else ''}"
    with torch.inference_mode(), cli.trainer.precision_plugin.forward_context():
        for loaded in track(loader, what, total=len(loader), unit="batches"):
            compact = data.transfer_batch_to_device(loaded, device, 0)
            clean = data.flatten(compact)
            draws: dict[tuple, Tensor | None] = {}
            for condition, metrics in found.items():
                batch = damaged(condition, compact, clean, data.flatten.modalities, draws)
                metrics.update(task(batch.inputs).float(), batch.target, batch.weight, batch.keys)
    return found


def damaged(
    condition: Condition, compact: dict, clean: Batch, modalities: Any, draws: dict[tuple, Tensor | None]
) -> Batch:
    """The batch under a condition. `draws` keeps what the levels of a corruption share."""
    inputs = dict(clean.inputs)
    if condition.name == "missing":
        for name in condition.modalities:
            array = inputs[name]
            inputs[name] = without(array, torch.ones_like(array.values[..., 0], dtype=torch.bool))
        return replace(clean, inputs=inputs)
    corruption = condition.corruption
    if corruption is None:
        return clean
    (name,) = condition.modalities
    if (place := (corruption.name, name)) not in draws:
        draws[place] = drawn(corruption, name, compact)
    amount = corruption.amounts[condition.level - 1]
    if corruption.mask is not None:
        shared = draws[place]
        assert shared is not None
        inputs[name] = corruption.mask(inputs[name], shared, amount)
    else:
        assert corruption.damage is not None
        raw = corruption.damage(compact[name], draws[place], amount, modalities[name])
        inputs[name] = moved_as(clean.inputs[name], modalities[name](raw))
    return replace(clean, inputs=inputs)


def moved_as(clean: ByteArray, found: ByteArray) -> ByteArray:
    """The damaged byte array in the order of the clean one, whose elements a permutation may have moved."""
    return found if clean.order is None else found.permute(clean.order)


def drawn(corruption: Corruption, name: str, compact: dict) -> Tensor | None:
    """What a corruption draws for every sample, from its key alone."""
    if corruption.draw is None:
        return None
    rows = [
        corruption.draw(sample, torch.Generator().manual_seed(hashed_seed("stress", corruption.name, name, key)))
        for sample, key in zip(compact[name], compact["key"], strict=True)
    ]
    return torch.stack(rows)


def values(metrics: ScoreMetrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.compute().items()}


def on_cpu(metrics: ScoreMetrics) -> tuple[Tensor, Tensor]:
    scores, target, _ = metrics.gathered()
    return scores.cpu(), target.cpu()


def contributions(metrics: ScoreMetrics, name: str) -> np.ndarray | None:
    """One number per sample whose mean is the metric, in the order of the samples; None where there is none."""
    compute = metric_named(name).contributions
    return None if compute is None else compute(metrics.predictions())


def difference(found: np.ndarray | None, clean: np.ndarray | None) -> dict[str, float] | None:
    """Damaged minus clean on the same samples, with its 95 % interval over test samples."""
    if found is None or clean is None:
        return None
    parts = found - clean
    error = Z * float(parts.std(ddof=1)) / len(parts) ** 0.5 if len(parts) > 1 else float("nan")
    mean = float(parts.mean())
    return {"mean": mean, "low": mean - error, "high": mean + error}
