"""Strangers' configs run no code; the trainer's overlays mean what they say."""

from pathlib import Path

import pytest
import torch
import yaml

import src.fit as fit
from datamodules import UserError
from src.config.trust import check_configs
from src.runs.folder import Run
from tests.support import DIGITS, ROOT

CELL = ["--config", DIGITS, "--trainer.max_steps", "4"]
STEPS = ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"model": {"class_path": "evil.Model"}}, "model.class_path is evil.Model"),
        ({"model": {"init_args": {"optimizer": "os.system"}}}, "model.init_args.optimizer is os.system"),
        (
            {"trainer": {"callbacks": [{"class_path": "subprocess.Popen"}]}},
            "trainer.callbacks.class_path is subprocess.P",
        ),
        ({"trust": ["evil"]}, "contains `trust`"),
    ],
)
def test_a_config_that_names_other_code_is_refused_before_it_is_imported(tmp_path, config, where):
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "innocent.yaml").write_text("data: evil.yaml")
    for given in (
        ["--config", str(tmp_path / "evil.yaml")],
        [f"--config={tmp_path}/evil.yaml"],
        ["--data", str(tmp_path / "evil.yaml")],
        ["--config", str(tmp_path / "innocent.yaml")],
    ):
        with pytest.raises(UserError, match=where):
            fit.main([*CELL, *given])


def test_what_the_command_line_trusts_is_let_through(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {class_path: my_models.Best}")
    args = ["--config", str(tmp_path / "mine.yaml"), "--trust", "[my_models, others]"]
    check_configs(args)
    with pytest.raises(UserError, match=r"add --trust '\[my_models\]'"):
        check_configs(args[:2])


def test_every_config_names_known_packages_alone():
    for path in [*ROOT.glob("configs/*.yaml"), *ROOT.glob("configs/trainer/*.yaml")]:
        check_configs(["--config", str(path)])


def weights(tmp_path: Path, name: str, *options: str) -> dict:
    fit.main([*CELL, *STEPS, "--runs_dir", str(tmp_path / name), *options])
    return Run(tmp_path / name / "digits" / "perceiver" / "seed0").weights()


def test_accumulation_makes_the_same_steps_of_smaller_batches(tmp_path):
    whole = weights(tmp_path, "whole")
    overlay = ["--config", str(ROOT / "configs" / "trainer" / "accumulate.yaml"), "--data.batch_size", "8"]
    parts = weights(tmp_path, "parts", *overlay)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


def test_bfloat16_trains_on_float32_weights(tmp_path):
    whole = weights(tmp_path, "whole")
    mixed = weights(tmp_path, "mixed", "--config", str(ROOT / "configs" / "trainer" / "bf16.yaml"))
    assert all(value.dtype == whole[name].dtype for name, value in mixed.items())
    assert any(not torch.equal(value, whole[name]) for name, value in mixed.items())


def test_a_compiled_backbone_leaves_the_same_names_in_its_checkpoint(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(type(self).__name__))
    names = weights(tmp_path, "compiled", "--config", str(ROOT / "configs" / "trainer" / "compile.yaml")).keys()
    assert compiled == ["Perceiver"]
    assert not any("_orig_mod" in name for name in names)
