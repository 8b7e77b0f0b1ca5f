"""Export a finished run: `python -m src.export runs/quickstart/dialpad_perceiver/seed0 --to onnx`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from datamodules import ByteArray, UserError
from datamodules.storage.manifest import MANIFEST, read_manifest

from . import api
from .config.command import Parser, run_command
from .config.names import check_name
from .config.package import command_name
from .metrics.classification import ScoreMetrics, check_finite
from .metrics.recomputed import recompute
from .metrics.registry import is_count
from .report.records import read_predictions
from .report.terminal import say
from .runs.files import PART, remove_quietly, sha256_of, write_file
from .runs.folder import Run
from .training.weights import PREFIX, read_safetensors

DESCRIPTION = """Write a run's model as one file, check it on the run's own test samples, and lay a card beside it. Further
options change the run's config, such as --data.batch_size 1 or --data.data_dir elsewhere. A program, torch or onnx, takes for
each modality what the datamodule's `flatten` gives, in batches of the run's size, and gives scores."""
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx", "weights": ".safetensors"}
VARYING = ("values", "positions", "mask", "order")  # what of a byte array differs between batches
RESAMPLES = 1000
TOLERANCE = 1e-4  # of values, relative and absolute
Tensors = dict[str, Tensor]


def main(args: list[str] | None = None) -> Path:
    """Returns the exported file."""
    parser = Parser(command_name("export"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "--to",
        choices=tuple(SUFFIXES),
        required=True,
        help="torch: for torch.export.load; onnx: for onnxruntime; weights: tensors of the backbone, for other runs",
    )
    parser.add_argument("--checkpoint", default="last", help="last (default), as results.json, or best")
    parser.add_argument("--out", type=Path, help="folder of the file and its card (default: RUN/export)")
    parser.add_argument("--name", help="name of the file (default: EXPERIMENT_CELL_seedSEED)")
    options, overrides = parser.parse_known_args(args)
    check_name("--checkpoint", options.checkpoint)
    run = Run(options.run)
    results = run.results()
    name = options.name or f"{results.experiment}_{results.cell}_seed{results.seed}"
    check_name("--name", name)
    cli = api.load_run(run, options.checkpoint, [*overrides, "--trainer.accelerator", "cpu"])
    path = (options.out or run.folder / "export") / f"{name}{SUFFIXES[options.to]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{name}{PART}{path.suffix}")
    try:
        export = export_weights if options.to == "weights" else export_program
        facts = export(cli.model.eval().requires_grad_(False), cli.datamodule, aside)
        os.replace(aside, path)
    finally:
        remove_quietly(aside)
    facts |= {"file": path.name, "sha256": sha256_of(path), "run": str(run.folder), "checkpoint": options.checkpoint}
    facts |= {"identity": run.identity(), "licence_of_data": licence(cli.datamodule)}
    write_file(path.with_suffix(".md"), card(run, facts))
    say(f"{path}, {path.stat().st_size / 1e6:.1f} MB: {facts['checked']}")
    return path


def export_weights(model: Any, data: Any, path: Path) -> dict:
    """Writes the backbone's tensors, and returns what the card says of them."""
    from safetensors.torch import save_file

    tensors = {f"{PREFIX}{name}": t.clone().contiguous() for name, t in model.backbone.state_dict().items()}
    save_file(tensors, path)
    written = read_safetensors(path)
    if any(not torch.equal(tensor, written[name]) for name, tensor in tensors.items()):
        raise UserError(f"{path} does not hold what was written: check the disk")
    return {"backbone": type(model.backbone).__name__, "checked": f"{len(tensors)} tensors, equal to the bit"}


def export_program(model: Any, data: Any, path: Path) -> dict:
    """Writes a program, and returns what the card says of it.

    Raises:
        UserError: the model is a detector, or the program predicts anything else than the model.
    """
    if model.drawn_as == "objects":
        raise UserError(
            "a detector's outputs change in size, which no program here has: export its backbone, --to weights"
        )
    inputs = data.flatten(next(iter(data.loader("test")))).inputs
    program, example = Program(model, inputs), varying(inputs)
    exported = torch.export.export(program, tuple(example.values()), strict=False)
    if path.suffix == ".onnx":
        run = write_onnx(exported, list(example), path)
    else:
        torch.export.save(exported, path)
        run = torch.export.load(path).module()
    shapes = {
        name: f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for name, tensor in example.items()
    }
    return {"inputs": shapes, "checked": check(model, data, run)}


class Program(nn.Module):
    """A task as a function of the tensors that differ between batches.

    Args:
        model: the task.
        inputs: byte arrays of one batch; what all batches share becomes part of the program.
    """

    def __init__(self, model: nn.Module, inputs: dict[str, ByteArray]) -> None:
        super().__init__()
        self.model, self.inputs, self.names = model, inputs, list(varying(inputs))

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        arrays = {}
        for modality, array in self.inputs.items():
            own: Any = {part: given[f"{modality}_{part}"] for part in VARYING if f"{modality}_{part}" in given}
            arrays[modality] = replace(array, **own)
        return self.model(arrays)


def varying(inputs: dict[str, ByteArray]) -> Tensors:
    """The tensors of byte arrays that differ between batches, by MODALITY_PART."""
    found = {}
    for modality, array in inputs.items():
        for part in VARYING:
            tensor = getattr(array, part)
            # shared ones have no axis of examples
            if tensor is not None and tensor.dim() == {"values": 3, "positions": 3}.get(part, 2):
                found[f"{modality}_{part}"] = tensor
    return found


def write_onnx(exported: torch.export.ExportedProgram, names: list[str], path: Path) -> Callable[..., Tensor]:
    """Writes ONNX, and returns a function that runs it."""
    import onnxruntime

    torch.onnx.export(
        exported, f=path, input_names=names, output_names=["scores"], dynamo=True, external_data=False, verbose=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(*tensors: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


@torch.no_grad()
def check(model: Any, data: Any, run: Callable[..., Tensor]) -> str:
    """Compares a program with the model on the test split.

    Raises:
        UserError: a prediction differs.
    """
    scored = isinstance(model.test_metrics, ScoreMetrics)  # others keep sums alone: their outputs are compared
    kept = [type(model.test_metrics)() for _ in range(2)] if scored else []
    names, worst, differing, samples = None, 0.0, 0, 0
    for compact in data.loader("test"):
        batch = data.flatten(compact)
        tensors = varying(batch.inputs)
        names = names or list(tensors)
        if list(tensors) != names:
            raise UserError(f"batches of the test split differ: {names} and {list(tensors)}; set --data.batch_size 1")
        outputs, real = (model(batch.inputs), run(*tensors.values())), batch.weight > 0
        for scores in outputs:
            check_finite(scores.flatten(1), real, batch.keys)
        wanted, found = (scores[real].numpy() for scores in outputs)
        worst = max(worst, float(np.abs(wanted - found).max(initial=0)))
        if scored:
            for metrics, scores in zip(kept, outputs, strict=True):
                metrics.update(scores, batch.target, batch.weight, batch.keys)
        else:
            differing, samples = differing + count_differing(wanted, found), samples + len(wanted)
    if scored:
        wanted, found = (decisions(metrics.predictions()) for metrics in kept)
        differing, samples = count_differing(wanted, found), len(wanted)
    said = f"{differing} of {samples} predictions on the test split differ, scores by at most {worst:.1e}"
    if differing:
        raise UserError(f"the program is not the model: {said}; please report this model as a bug")
    return said


def decisions(predictions: dict[str, np.ndarray]) -> np.ndarray:
    """What was predicted: classes, or for each label whether it is there; values of regression."""
    if "predicted" in predictions:
        return predictions["predicted"]
    return predictions["scores"] if predictions["target"].dtype.kind == "f" else predictions["scores"] > 0


def count_differing(wanted: np.ndarray, found: np.ndarray) -> int:
    """How many rows differ; values do by more than rounding."""
    same = np.isclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE) if wanted.dtype.kind == "f" else found == wanted
    return int((~same).reshape(len(same), -1).any(axis=1).sum())


def licence(data: Any) -> str:
    """What the manifest of prepared data says."""
    folder = Path(getattr(data, "data_dir", ""))
    if (folder / MANIFEST).is_file():
        return read_manifest(folder)["licence"] or "none is recorded"
    if data.licence is not None:
        return data.licence
    return f"see the page of data sets in the documentation, {type(data).__name__}"


def card(run: Run, facts: dict) -> str:
    """A page for people, with the facts for programs at its head."""
    results, data = run.results(), run.read("data.json")
    measured, bounds = results.metrics["test"], intervals(run)
    facts |= {"data": {"dataset": data["dataset"], "fingerprint": data["fingerprint"]}}
    facts |= {"metrics": {name: [value, *bounds.get(name, ())] for name, value in measured.items()}}
    rows = [
        f"| {name} | {value:.4f} | {'{:.4f} to {:.4f}'.format(*bounds[name]) if name in bounds else ''} |"
        for name, value in measured.items()
    ]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(facts, sort_keys=False, width=120).rstrip(),
            "---",
            f"# {results.experiment}/{results.cell}, seed {results.seed}",
            "",
            f"{results.parameters:,} parameters, trained on {data['dataset']}. {facts['checked']}.",
            "",
            "| test split | value | 95 % interval over test samples |",
            "|---|---|---|",
            *rows,
            "",
            "```yaml",
            yaml.safe_dump(run.config(), sort_keys=False).rstrip(),
            "```",
            "",
        ]
    )


def intervals(run: Run) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over the test samples, for the metrics that follow from the kept predictions."""
    path = run.folder / "predictions.npz"
    if not path.is_file():
        return {}
    kept = read_predictions(path, len(run.read("data.json")["spec"]["classes"]))
    arrays = {name: kept[name] for name in ("target", "predicted", "scores") if name in kept}
    names = [name for name in recompute(arrays, run.results().metrics["test"]) if not is_count(name)]
    size, draw = len(arrays["target"]), np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        rows = draw.integers(size, size=size)
        values = recompute({name: array[rows] for name, array in arrays.items()}, names)
        found.append([values.get(name, np.nan) for name in names])
    low, high = np.nanquantile(np.reshape(found, (RESAMPLES, len(names))), [0.025, 0.975], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


if __name__ == "__main__":
    run_command(main)
