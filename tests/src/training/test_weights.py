"""Weights to begin with: from runs, files, releases and timm, whole or in part, and what is told of them."""

import json
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import src.fit as fit
from datamodules import Digits, UserError
from src.backbones import Perceiver, ResNet, Transformer
from src.tasks import Classification
from src.training.weights import load_weights
from tests.support import DIGITS

SPEC = Digits().spec
SMALL = partial(Perceiver, num_latents=4, latent_dim=16, cross_attends=1, self_attends_per_block=2, self_heads=2)


def options_of(folder: Path, cell: str, **model: object) -> list[str]:
    config = yaml.safe_load(Path(DIGITS).read_text())
    config["cell"], config["trainer"]["max_epochs"] = cell, 1
    config["model"]["init_args"] |= model
    config["model"]["init_args"]["backbone"]["init_args"] = SMALL.keywords
    (folder / f"{cell}.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(folder / f"{cell}.yaml"), "--runs_dir", str(folder / "runs")]


def saved(backbone: nn.Module, path: Path) -> str:
    state = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {**state, "head.weight": torch.zeros(3)}}, path)
    return str(path)


def test_a_run_begins_with_the_backbone_of_another_and_records_what_was_loaded(tmp_path, capsys):
    first = fit.main(options_of(tmp_path, "first"))
    frozen = ["backbone"]
    second = fit.main(options_of(tmp_path, "second", weights=str(first.folder), freeze=frozen))
    before, after = first.weights(), second.weights()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(before["head.weight"], after["head.weight"])
    record = json.loads((second.folder / "weights.json").read_text())
    assert {f"backbone.{name}" for name in record["loaded"]} == {name for name in before if name.startswith("backbone")}
    assert [record[name] for name in ("missing", "refused", "unused")] == [[], {}, []]
    digest = (first.folder / "checkpoints" / "last.ckpt.sha256").read_text().split()[0]
    assert record["sha256"] == digest
    assert f"weights of {first.folder}: {len(record['loaded'])} tensors loaded" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_what_fits_is_loaded_and_the_rest_is_told(tmp_path, suffix):
    torch.manual_seed(0)
    source = SMALL(SPEC, num_latents=6, self_attends_per_block=1)
    target = SMALL(SPEC, cross_attends=1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    report = load_weights(target, saved(source, tmp_path / f"w.{suffix}"))
    assert report.refused == {"latents": "(6, 16) for (4, 16)"}
    assert set(report.missing) == {name for name in before if name.startswith("transformers.0.1.")}
    assert set(report.loaded) == set(before) - set(report.missing) - {"latents"}
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name] if name in report.loaded else before[name])
    assert "1 refused (latents (6, 16) for (4, 16))" in str(report)


def test_sources_that_hold_nothing_for_the_backbone_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("BYTEBENCH_WEIGHTS", str(tmp_path))
    backbone = SMALL(SPEC)
    other = saved(Transformer(SPEC, dim=16, depth=1, heads=2), tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    for source, said in (
        (str(tmp_path / "nowhere"), "nowhere is missing"),
        (str(tmp_path / "nowhere.safetensors"), "nowhere.safetensors is missing"),
        (str(tmp_path / "broken.safetensors"), "broken.safetensors cannot be read"),
        (other, "is of another architecture than model.backbone"),
        ("release:no", r"release:no is not in .* \(there: broken, other\): set BYTEBENCH_WEIGHTS"),
        ("release:../other", "set BYTEBENCH_WEIGHTS"),
        ("timm:resnet10t", "is for a backbone that wraps timm"),
    ):
        with pytest.raises(UserError, match=said) as error:
            load_weights(backbone, source)
        assert "\n" not in str(error.value)


def test_no_code_of_a_checkpoint_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {"backbone.latents": Evil()}}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        load_weights(SMALL(SPEC), str(tmp_path / "evil.ckpt"))
    assert not (tmp_path / "ran").exists()


def test_a_release_is_found_by_its_name_in_the_folder_of_releases(tmp_path, monkeypatch):
    monkeypatch.setenv("BYTEBENCH_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    source, target = SMALL(SPEC), SMALL(SPEC)
    saved(source, tmp_path / "small.safetensors")
    assert load_weights(target, "release:small").whole
    assert torch.equal(source.latents, target.latents)


def test_timm_publishes_weights_for_what_wraps_it_and_adapts_the_channels(tmp_path, monkeypatch):
    published = timm.create_model("resnet10t")
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    create = partial(timm.create_model, pretrained_cfg_overlay={"file": str(tmp_path / "published.safetensors")})
    monkeypatch.setattr(timm, "create_model", create)
    backbone = ResNet(SPEC, name="resnet10t")  # of grey pictures
    report = load_weights(backbone, "timm:resnet10t")
    assert report.whole
    first = published.conv1[0].weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(backbone.network.conv1[0].weight, first)
    for name in ("hf-hub:someone/model", "local-dir:/tmp", "no_such_model"):
        with pytest.raises(UserError, match="timm has no model"):
            load_weights(backbone, f"timm:{name}")


def test_weights_that_timm_cannot_fetch_end_in_one_line(monkeypatch):
    backbone = ResNet(SPEC, name="resnet10t")

    def no_network(*args, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", no_network)
    with pytest.raises(UserError, match="timm:resnet10t cannot be had") as error:
        load_weights(backbone, "timm:resnet10t")
    assert "\n" not in str(error.value)


def test_weights_are_loaded_once(tmp_path):
    torch.manual_seed(0)
    model = Classification(SPEC, SMALL, weights=saved(SMALL(SPEC), tmp_path / "w.safetensors"))
    model.setup("fit")
    with torch.no_grad():
        model.backbone.latents.zero_()
    model.setup("fit")
    assert not model.backbone.latents.any()
