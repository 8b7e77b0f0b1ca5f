"""Exported programs and weights are the run: the same predictions on its test split, and a card that says what it is."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import src.export as export
import src.fit as fit
from datamodules import Digits, UserError
from src.backbones import LambdaNet, PerceiverIO
from src.runs.folder import Run
from src.tasks import Classification, Detection, Reconstruction
from src.training.weights import load_weights
from tests.support import DIGITS

BACKBONES = {
    "Perceiver": {"num_latents": 8, "latent_dim": 16, "cross_attends": 2, "self_attends_per_block": 1, "self_heads": 2},
    "LambdaNet": {"widths": [16], "blocks_per_stage": 1},
    "EfficientNet": {},
    "TimmLambdaResNet": {},
}
LARGE = ("EfficientNet", "TimmLambdaResNet")  # networks for larger pictures than digits


def trained(folder: Path, backbone: str, data: dict | None = None) -> Run:
    config = yaml.safe_load(Path(DIGITS).read_text())
    config |= {"cell": backbone.lower(), "runs_dir": str(folder / "runs")}
    config["data"] = data or config["data"]
    config["model"]["init_args"]["backbone"] = {
        "class_path": f"src.backbones.{backbone}",
        "init_args": BACKBONES[backbone],
    }
    config["trainer"] = {"max_steps": 3, "limit_val_batches": 1}
    (folder / f"{backbone}.yaml").write_text(yaml.safe_dump(config))
    return fit.main(["--config", str(folder / f"{backbone}.yaml")])


@pytest.fixture(scope="module")
def perceiver(tmp_path_factory) -> Run:
    return trained(tmp_path_factory.mktemp("export"), "Perceiver")


@pytest.mark.parametrize(
    ("backbone", "to"),
    [("Perceiver", "torch"), ("LambdaNet", "onnx"), ("EfficientNet", "torch"), ("TimmLambdaResNet", "onnx")],
)
def test_a_program_predicts_what_the_run_predicts(backbone, to, perceiver, tiny, tmp_path, capsys):
    options = tiny.options("ImageNet") if backbone in LARGE else {}
    data = {"class_path": "datamodules.ImageNet", "init_args": options | {"batch_size": 8, "num_workers": 0}}
    run = perceiver if backbone == "Perceiver" else trained(tmp_path, backbone, data if options else None)
    path = export.main([str(run.folder), "--to", to])
    assert path == run.folder / "export" / f"digits_{backbone.lower()}_seed0{export.SUFFIXES[to]}"
    samples = int(run.results().metrics["test"]["samples"])
    assert f": 0 of {samples} predictions on the test split differ" in capsys.readouterr().out
    assert path.with_suffix(".md").is_file()
    assert not list(path.parent.glob("*.part*"))


def test_the_card_says_what_the_run_is(perceiver, tmp_path):
    path = export.main([str(perceiver.folder), "--to", "weights", "--out", str(tmp_path), "--name", "small"])
    _, head, body = path.with_suffix(".md").read_text().split("---\n", 2)
    facts, data = yaml.safe_load(head), perceiver.read("data.json")
    assert facts["data"] == {"dataset": "Digits", "fingerprint": data["fingerprint"]}
    assert facts["identity"] == perceiver.identity()
    value, low, high = facts["metrics"]["top1"]
    assert value == perceiver.results().metrics["test"]["top1"]
    assert low < value < high
    spread = (value * (1 - value) / facts["metrics"]["samples"][0]) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert yaml.safe_load(body.split("```yaml\n")[1].split("```")[0]) == perceiver.config()


def test_weights_become_a_release(perceiver, tmp_path, monkeypatch):
    export.main([str(perceiver.folder), "--to", "weights", "--out", str(tmp_path), "--name", "small"])
    monkeypatch.setenv("BYTEBENCH_WEIGHTS", str(tmp_path))
    backbone = export.api.load_run(perceiver).model.backbone
    wanted = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    for parameter in backbone.parameters():
        parameter.data.zero_()
    assert load_weights(backbone, "release:small").whole
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in backbone.state_dict().items())


def test_a_program_that_predicts_otherwise_is_refused():
    torch.manual_seed(0)
    data = Digits(batch_size=256)
    model = Classification(data.spec, lambda spec: LambdaNet(spec, widths=(16,), blocks_per_stage=1)).eval()
    program = export.Program(model, data.flatten(next(iter(data.loader("test")))).inputs)
    assert export.check(model, data, program).startswith("0 of ")
    for wrong in (lambda *tensors: -program(*tensors), lambda *tensors: program(*tensors) * torch.nan):
        with pytest.raises(UserError, match=r"the program is not the model|NaN or infinite"):
            export.check(model, data, wrong)


def test_a_program_that_reconstructs_other_values_is_refused():
    torch.manual_seed(0)
    data = Digits(batch_size=256)
    backbone = partial(PerceiverIO, outputs="image", query_dim=16, **BACKBONES["Perceiver"])
    model = Reconstruction(data.spec, backbone, "image").eval()
    program = export.Program(model, data.flatten(next(iter(data.loader("test")))).inputs)
    assert export.check(model, data, program).startswith("0 of 300 ")
    assert export.check(model, data, lambda *tensors: program(*tensors) + 1e-6).startswith("0 of 300 ")
    for wrong in (lambda *tensors: program(*tensors) + 0.01, lambda *tensors: program(*tensors) * torch.nan):
        with pytest.raises(UserError, match=r"300 of 300 predictions|NaN or infinite"):
            export.check(model, data, wrong)


@pytest.mark.parametrize(("change", "differing"), [(0, 0), (1e-7, 0), (0.002, 2)])
def test_values_differ_where_they_do_by_more_than_rounding(change, differing):
    values = np.array([[0.12349999], [-0.5]])  # the third digit of one is about to change
    assert export.count_differing(values, values + change) == differing


def test_a_detector_is_not_exported_whole(tmp_path):
    with pytest.raises(UserError, match="--to weights"):
        export.export_program(Detection, None, tmp_path / "x.onnx")
