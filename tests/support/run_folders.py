"""Run folders as src.fit writes them, with made-up numbers: for statistics and pages that need many runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from src.metrics.classification import average_precision_per_class

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def make_run(
    root: Path,
    cell: str,
    seed: int,
    quality: float = 0.8,
    experiment: str = "made_up",
    task: str = "single_label",
    samples: int = 500,
    steps: int = 120,
    config: dict | None = None,
    results: dict | None = None,
    data: dict | None = None,
    environment: dict | None = None,
    cluster_size: int = 1,
    rows: int = 30,
) -> Path:
    """A finished run whose predictions are right with probability `quality`, on test samples that all runs share; the
    samples of a cluster have the same predictions."""
    folder = root / experiment / cell / f"seed{seed}"
    folder.mkdir(parents=True)
    shared, own = np.random.default_rng(0), np.random.default_rng([seed, *cell.encode()])
    sample = np.sort(shared.integers(2**62, size=samples))
    if task == "single_label":
        target = shared.integers(len(CLASSES), size=samples)
        cluster = np.arange(samples) // cluster_size
        right = own.random(samples)[cluster] < quality
        predicted = np.where(right, target, own.integers(len(CLASSES), size=samples))
        names = {"cluster": cluster.astype(np.str_)} if cluster_size > 1 else {}
        np.savez_compressed(folder / "predictions.npz", sample=sample, target=target, predicted=predicted, **names)
        metrics = {"loss": 2 * (1 - quality), "top1": float((predicted == target).mean())}
    else:
        target = (shared.random((samples, len(CLASSES))) < 0.2).astype(np.int64)
        scores = (target * quality * 3 + own.normal(size=target.shape)).astype(np.float32)
        np.savez_compressed(folder / "predictions.npz", sample=sample, target=target, scores=scores)
        precision = average_precision_per_class(torch.from_numpy(scores), torch.from_numpy(target)).mean().item()
        metrics = {"loss": 1 - quality, "map": precision, "map_classes": len(CLASSES)}
    options = {
        "seed_everything": seed,
        "trainer": {"max_epochs": 5, "max_steps": steps, "max_time": None, "accumulate_grad_batches": 1},
        "model": {"class_path": "src.tasks.Classification", "init_args": {"lr": 0.01}},
        "data": {"class_path": "datamodules.FashionMNIST", "init_args": {"batch_size": 64, "seed": seed}},
        "experiment": experiment,
        "cell": cell,
        "runs_dir": str(root),
    }
    for name, value in (config or {}).items():
        place = options
        *parents, last = name.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    write(folder / "data.json", {**made_up_data(task), **(data or {})})
    write(folder / "environment.json", {**made_up_environment(), **(environment or {})})
    kept = {"val": {**metrics, "samples": 100}, "test": {**metrics, "samples": samples}}
    costs = {"parameters": 1000 * len(cell), "flops_per_example": 10**6 * len(cell), "train_samples_per_second": 100.0}
    costs |= {"peak_memory": {"bytes": 10**9, "of": "process"}, "wall_time_seconds": 60.0 + seed, "energy_joules": None}
    whole = {"experiment": experiment, "cell": cell, "seed": seed, "metrics": kept, "epochs": 1, "steps": steps}
    write(folder / "results.json", {**whole, **costs, **(results or {})})
    step = np.linspace(0, steps - 1, rows).astype(int)
    curve = 2 * np.exp(-step / steps * 3) + own.normal(scale=0.05, size=rows)
    table = {"epoch": 0, "step": step, "train/loss": curve, "val/loss": curve + 0.1}
    table[f"val/{'top1' if task == 'single_label' else 'map'}"] = quality * (1 - np.exp(-step / steps * 3))
    pd.DataFrame(table).to_csv(folder / "metrics.csv", index=False)
    return folder


def made_up_data(task: str) -> dict:
    splits = {name: {"samples": 500, "keys_sha256": name[0] * 64} for name in ("train", "val", "test")}
    spec = {"modalities": {"image": {"elements": 784}}, "task": task, "classes": list(CLASSES)}
    return {"dataset": "FashionMNIST", "fingerprint": "a" * 64, "splits": splits, "spec": spec}


def made_up_environment() -> dict:
    return {
        "wandb_id": "00000000",
        "command": ["python", "-m", "src.fit"],
        "git": {"commit": "c" * 40, "dirty": False},
        "python": "3.11.7",
        "platform": "Linux",
        "cpu": "A processor",
        "cpu_cores": 2,
        "threads": 2,
        "gpus": [],
        "cuda": None,
        "torch": {"deterministic": False},
        "packages": {"torch": "2.11.0", "numpy": "2.3.0"},
    }


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1))
