"""Training on damaged inputs: what is damaged, that nothing else is, and that it helps against what it was trained with."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

import src.evaluate as evaluate
import src.fit as fit
from datamodules import Digits, Furniture, Icons, LanguageId, Text, UserError
from src.stress import Corrupted
from src.stress.callback import Damage, chosen
from src.stress.corruptions import OF_KIND
from tests.support import DIGITS, ROOT

CONFIG = str(ROOT / "configs/trainer/corrupted.yaml")
PAGE = ROOT / "docs/stress.md"


def damaging(data, epoch: int = 0, training: bool = True, share: float = 0.5, only=None):
    """`flatten` of the data while a trainer trains with the callback."""
    trainer = SimpleNamespace(training=training, current_epoch=epoch)
    damage = Damage(data, trainer, share, (5, 5), chosen(data, only))

    def flatten(compact: dict):
        handles = damage.attached()
        try:
            return data.flatten(compact)
        finally:
            for handle in handles:
                handle.remove()

    return flatten


def changed(clean, found) -> torch.Tensor:
    """Which samples of a batch differ, in any modality."""
    rows = [(found.inputs[name].values != array.values).flatten(1).any(dim=1) for name, array in clean.inputs.items()]
    rows += [~array.mask.all(dim=1) for array in found.inputs.values() if array.mask is not None]
    return torch.stack(rows).any(dim=0)


def test_the_share_of_the_samples_is_damaged_and_only_in_training():
    data = Digits(batch_size=400)
    compact = next(iter(data.loader("train")))
    clean = data.flatten(compact)
    rows = changed(clean, damaging(data)(compact))
    assert rows.float().mean() == pytest.approx(0.5, abs=0.08)
    assert not changed(clean, damaging(data, training=False)(compact)).any()
    assert not changed(clean, damaging(data, share=0.0)(compact)).any()
    assert not changed(clean, data.flatten(compact)).any()  # the loader's batch has kept its values


def test_what_is_drawn_depends_on_epoch_and_sample_and_not_on_the_batch():
    data = Digits(batch_size=64)
    compact = next(iter(data.loader("train")))
    whole = damaging(data)(compact).inputs["image"].values
    half = {name: value[32:] for name, value in compact.items() if name in ("image", "target", "weight", "key")}
    assert torch.equal(damaging(data)(half).inputs["image"].values, whole[32:])
    assert not torch.equal(damaging(data, epoch=1)(compact).inputs["image"].values, whole)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Furniture, {}), (Icons, {"encodings": ("pixels", "outline", "path")}), (LanguageId, {}), (Text, {}),
        (Digits, {"permutation": "per_example"}),
    ],
)  # fmt: skip
def test_real_data_of_every_kind_are_damaged(kind, options, tiny):
    data = kind(**tiny.options(kind.__name__), **options, batch_size=8)
    data.prepare_data()
    compact = next(iter(data.loader("train", training=True)))
    clean = data.flatten(compact)
    for name, spec in data.spec.modalities.items():
        for corruption in chosen(data, None)[name]:
            assert corruption in OF_KIND[spec.kind]
            found = damaging(data, share=1.0, only={name: [corruption.name]})(compact)
            assert found.inputs[name].values.isfinite().all()
            assert changed(clean, found).float().mean() >= 0.5, corruption.name
            others = set(data.spec.modalities) - {name}
            assert all(torch.equal(found.inputs[o].values, clean.inputs[o].values) for o in others)


def test_a_run_that_was_trained_on_noise_loses_less_to_noise(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    few = ["--trainer.max_epochs", "6", "--runs_dir", str(tmp_path)]
    callback = json.dumps(
        {"class_path": "src.stress.Corrupted", "init_args": {"share": 0.7, "only": {"image": ["noise"]}}}
    )
    hardest = {}
    for cell, more in {"clean": [], "noisy": [f"--trainer.callbacks=[{callback}]"]}.items():
        run = fit.main(["--config", DIGITS, "--cell", cell, *few, *more])
        evaluate.main(["--run", str(run.folder), "--stress", "--samples", "0"])
        record = json.loads((run.folder / "stress_last.json").read_text())
        (hardest[cell],) = (
            c["metrics"]["top1"] for c in record["conditions"] if c["name"] == "noise" and c["level"] == 4
        )
    assert hardest["noisy"] > hardest["clean"] + 0.05


def test_the_config_file_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = fit.main(["--config", DIGITS, "--config", CONFIG, "--trainer.max_epochs", "1", "--runs_dir", str(tmp_path)])
    assert run.results().steps > 0


def test_mistakes_are_one_line():
    data = Digits()
    with pytest.raises(UserError, match="image has no 'smear': choose from noise, blur"):
        chosen(data, {"image": ["smear"]})
    with pytest.raises(UserError, match="only names 'sound', the data have image"):
        chosen(data, {"sound": ["noise"]})
    with pytest.raises(UserError, match=r"levels \[3, 6\]"):
        Corrupted(levels=(3, 6))
    with pytest.raises(UserError, match="share"):
        Corrupted(share=1.5)


def test_the_example_of_the_page_is_short_and_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (example,) = re.findall(r"```yaml\n# configs/corrupted.yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(example.splitlines()) < 25
    (tmp_path / "corrupted.yaml").write_text(example)
    options = ["--config", str(tmp_path / "corrupted.yaml"), "--trainer.max_epochs", "1", "--runs_dir", str(tmp_path)]
    assert fit.main(["--config", DIGITS, *options]).results().steps > 0
