"""Linear probes: closed form and trained maps, chosen on the validation split, of frozen features computed once."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

import src.evaluate as evaluate
import src.fit as fit
from datamodules import Digits, UserError
from src.backbones import Perceiver
from src.cli import ByteBenchCLI
from src.runs.folder import Run
from src.tasks import LinearProbe
from src.tasks.linear_maps import solve_maps, train_maps
from src.training.weights import load_weights
from tests.support import DIGITS

PENALTIES = [1.0, 100.0, 1e6]


def labelled_features(samples: int = 300) -> tuple[Tensor, Tensor]:
    """Features of mean 0 and their classes, of three, with some noise."""
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(samples, 8, generator=generator)
    target = (features[:, :3] + torch.randn(samples, 3, generator=generator)).argmax(dim=1)
    return torch.from_numpy(StandardScaler().fit_transform(features)).float(), target


def config_of(folder: Path, cell: str, classes: list[int], **changes) -> list[str]:
    """Options for a small run on some classes of the digits; changes are those of `model`, `init_args` and `trainer`."""
    config = yaml.safe_load(Path(DIGITS).read_text())
    config["cell"], config["data"]["init_args"]["classes"] = cell, classes
    init_args = changes.pop("init_args", {})
    if cell != "trained":
        config["model"] = {"class_path": "src.tasks.LinearProbe", "init_args": {"backbone": backbone_of(config)}}
        config["model"]["init_args"] |= {"penalties": PENALTIES} | init_args
        config["trainer"] = {"max_epochs": 1}
    config["trainer"] |= changes
    path = folder / f"{cell}.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", str(path), "--runs_dir", str(folder / "runs")]


def backbone_of(config: dict) -> dict:
    return config["model"]["init_args"]["backbone"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run trained on five digits, a probe of it on the other five, and one of random weights."""
    folder = tmp_path_factory.mktemp("probes")
    fit.main(config_of(folder, "trained", [0, 1, 2, 3, 4], max_epochs=12))
    source = str(folder / "runs" / "digits" / "trained" / "seed0")
    fit.main(config_of(folder, "probe", [5, 6, 7, 8, 9], init_args={"weights": source}))
    fit.main(config_of(folder, "random", [5, 6, 7, 8, 9]))
    return folder / "runs" / "digits"


def results(folder: Path, cell: str) -> dict:
    return json.loads((folder / cell / "seed0" / "results.json").read_text())


def features_of(run: Run, split: str) -> tuple[Tensor, Tensor]:
    """What the probe's maps read of a split, and the labels."""
    cli = ByteBenchCLI(["--config", str(run.folder / "config.yaml")], recording=False)
    cli.model.load_state_dict(run.weights())
    model = cli.model.eval()
    found, labels = [], []
    for compact in cli.datamodule.loader(split):
        batch = cli.datamodule.flatten(compact)
        real = batch.weight > 0
        found.append(model.features(batch.inputs)[real])
        labels.append(batch.target[real])
    return torch.cat(found), torch.cat(labels)


@pytest.mark.parametrize("penalty", [0.1, 10.0, 1000.0])
def test_the_closed_form_is_scikit_learns_ridge_regression(penalty):
    features, target = labelled_features()
    (_, found) = solve_maps(features, F.one_hot(target, 3), [1.0, penalty])
    wanted = Ridge(alpha=penalty).fit(features.numpy(), F.one_hot(target, 3).numpy())
    assert found.weight.detach().numpy() == pytest.approx(wanted.coef_, abs=1e-5)
    assert found.bias.detach().numpy() == pytest.approx(wanted.intercept_, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_a_trained_map_is_scikit_learns_logistic_regression_at_its_minimum(penalty):
    features, target = labelled_features()
    (_, (found, converged), _) = train_maps(features, target, 3, [1e-3, penalty, 1e3])
    wanted = LogisticRegression(C=1 / (2 * penalty), tol=1e-10, max_iter=5000).fit(
        features.double().numpy(), target.numpy()
    )
    assert converged
    assert found.weight.detach().numpy() == pytest.approx(wanted.coef_, abs=2e-6)
    probabilities = found(features).softmax(dim=1).detach().numpy()
    assert probabilities == pytest.approx(wanted.predict_proba(features.double().numpy()), abs=2e-6)


def test_a_map_to_several_labels_is_one_logistic_regression_for_each():
    features, target = labelled_features()
    labels = torch.stack([target == 1, features[:, 0] > 0.5], dim=1).long()
    ((found, _),) = train_maps(features, labels, 2, [1.0])
    for label in range(2):
        wanted = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000).fit(
            features.double().numpy(), labels[:, label].numpy()
        )
        assert found.weight[label].detach().numpy() == pytest.approx(wanted.coef_[0], abs=2e-6)
        assert found.bias[label].item() == pytest.approx(wanted.intercept_[0], abs=2e-6)


def test_maps_converge_on_features_that_depend_on_one_another_and_have_a_constant_one():
    features, target = labelled_features()
    mixed = features @ torch.linspace(-6, 6, 8).exp().diag() @ torch.linalg.qr(torch.randn(8, 8))[0]
    mixed = torch.cat([mixed - mixed.mean(dim=0), torch.zeros(300, 1)], dim=1)
    found = train_maps(mixed, target, 3, [1e-3, 1.0])
    assert all(fit.converged for fit in found)
    assert all(fit.linear.weight[:, -1].abs().max() == 0 for fit in found)


def test_a_penalty_of_a_path_gives_what_it_gives_alone():
    features, target = labelled_features()
    path = train_maps(features, target, 3, [0.01, 1.0, 100.0])
    for number, penalty in enumerate([0.01, 1.0, 100.0]):
        (alone,) = train_maps(features, target, 3, [penalty])
        torch.testing.assert_close(path[number].linear.weight, alone.linear.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.5, 0.6, 0.7], "1e\\+06, is at the end of the penalties 1 to 1e\\+06: add larger ones"),
        ([0.7, 0.6, 0.5], "1, is at the end of the penalties 1 to 1e\\+06: add smaller ones"),
        ([0.5, 0.7, 0.7], None),
        ([0.7, 0.7, 0.6], None),
        ([0.5, 0.7, 0.6], None),
    ],
)
def test_a_penalty_chosen_at_an_end_of_the_list_gives_a_warning(scores, said, recwarn, monkeypatch):
    data = Digits()
    probe = LinearProbe(data.spec, partial(Perceiver, num_latents=2, latent_dim=8), penalties=PENALTIES)
    found = iter(scores)
    monkeypatch.setattr(probe, "validate", lambda linear: next(found))
    monkeypatch.setattr(probe, "log", lambda *args: None)
    assert probe.choose("penalty", [nn.Linear(8, 10) for _ in scores], probe.head) == scores.index(max(scores))
    warned = [str(warning.message) for warning in recwarn]
    assert bool(warned) == bool(said)
    assert not said or re.search(said, warned[0])


def test_a_probe_on_unseen_classes_beats_chance_and_says_what_it_chose(folder):
    for cell in ("probe", "random"):
        metrics = results(folder, cell)["metrics"]
        assert metrics["val"]["penalty"] in PENALTIES
        assert metrics["val"]["ridge_penalty"] in PENALTIES
        assert metrics["test"]["top1"] > 0.5
        assert metrics["test"]["ridge_top1"] > 0.5
        assert metrics["test"]["samples"] == len(Digits(classes=[5, 6, 7, 8, 9]).split("test").keys)
    assert results(folder, "probe")["metrics"]["test"] != results(folder, "random")["metrics"]["test"]


def test_the_penalty_and_the_map_are_those_that_scikit_learn_finds_best_on_validation(folder):
    run = Run(folder / "probe" / "seed0")
    metrics = results(folder, "probe")["metrics"]
    train, val, test = (features_of(run, split) for split in ("train", "val", "test"))
    steps = len(train[0]) // 64 * 64  # the last, incomplete batch is left out
    order = fit_order(len(train[0]))[:steps]
    labels = F.one_hot(train[1], 5).numpy()
    fitted = [Ridge(alpha=p).fit(train[0].numpy()[order], labels[order]) for p in PENALTIES]
    reached = [(m.predict(val[0].numpy()).argmax(1) == val[1].numpy()).mean() for m in fitted]
    best = reached.index(max(reached))
    assert metrics["val"]["ridge_penalty"] == PENALTIES[best]
    assert metrics["val"]["ridge_top1"] == pytest.approx(max(reached), abs=1e-6)
    found = (fitted[best].predict(test[0].numpy()).argmax(1) == test[1].numpy()).mean()
    assert metrics["test"]["ridge_top1"] == pytest.approx(found, abs=1e-6)


def fit_order(size: int) -> list[int]:
    from datamodules.core.order import epoch_order

    return epoch_order(size, seed=0, epoch=0)


def test_features_of_training_have_mean_0_and_standard_deviation_1(folder):
    features, _ = features_of(Run(folder / "probe" / "seed0"), "train")
    steps = fit_order(len(features))[: len(features) // 64 * 64]
    assert torch.allclose(features[steps].mean(dim=0), torch.zeros(64), atol=1e-4)
    assert torch.allclose(features[steps].std(dim=0, correction=0), torch.ones(64), atol=1e-4)


def test_the_backbone_of_a_probe_is_that_of_the_run_to_the_last_bit(folder):
    trained, probe, random = (Run(folder / cell / "seed0").weights() for cell in ("trained", "probe", "random"))
    names = [name for name in trained if name.startswith("backbone.")]
    assert names
    assert all(torch.equal(trained[name], probe[name]) for name in names)
    assert not any(torch.equal(trained[name], random[name]) for name in names if trained[name].dim() > 1)


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluating_a_probes_run_gives_its_results_again(folder, split):
    wanted = results(folder, "probe")["metrics"][split]
    found = evaluate.main(["--run", str(folder / "probe" / "seed0"), "--split", split])
    assert found.keys() == wanted.keys() - {"penalty", "ridge_penalty"}
    for name, value in found.items():
        assert value == pytest.approx(wanted[name], rel=1e-5)


def test_each_picture_goes_through_the_backbone_once(folder, tmp_path):
    options = config_of(tmp_path, "counted", [5, 6, 7, 8, 9])
    cli = ByteBenchCLI(options, recording=False)
    seen: list[int] = []
    cli.model.backbone.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    cli.trainer.fit(cli.model, cli.datamodule)
    train, val = (len(cli.datamodule.split(name).keys) for name in ("train", "val"))
    assert sum(seen) == train // 64 * 64 + -(-val // 64) * 64  # the last batch of validation is padded


def test_the_backbone_stays_in_evaluation_and_gets_no_gradient(folder, tmp_path):
    cli = ByteBenchCLI(config_of(tmp_path, "frozen", [5, 6, 7]), recording=False)
    model = cli.model.train()
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_weights_of_another_architecture_are_refused_in_one_line_before_the_older_run_is_moved(folder, tmp_path):
    source = str(folder / "trained" / "seed0")
    for options, said in (
        (["--model.backbone.latent_dim", "32"], r"refused \(latents \(16, 64\) for \(16, 32\)"),
        (["--model.backbone.self_attends_per_block", "3"], r"missing \(transformers\.0\.2\."),
        (["--model.backbone.self_attends_per_block", "1"], r"unused \(transformers\.0\.1\."),
    ):
        args = config_of(tmp_path, "probe", [5, 6, 7, 8, 9], init_args={"weights": source})
        with pytest.raises(UserError, match=r"is of another architecture than model\.backbone \(Perceiver;") as error:
            fit.main([*args, *options])
        assert error.match(said)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "runs").exists()


def test_weights_that_are_missing_or_no_checkpoint_are_named(tmp_path):
    backbone = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"nowhere is missing: train the run first"):
        load_weights(backbone, str(tmp_path / "nowhere"))
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"text\.ckpt cannot be read"):
        load_weights(backbone, str(tmp_path / "text.ckpt"))
    torch.save({"state_dict": {"head.weight": torch.zeros(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"2 missing \(weight, bias\)"):
        load_weights(backbone, str(tmp_path / "other.ckpt"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_epochs": 2}, r"set --trainer\.max_epochs 1 \(it is 2\)"),
        ({"limit_val_batches": 0}, "leave validation on"),
        ({"max_steps": 3}, r"before the probe had the features of all training batches: leave --trainer\.max_steps"),
        ({"val_check_interval": 0.5}, "before the probe had the features of all training batches"),
        ({"init_args": {"penalties": [0.0, 1.0]}}, "give one or more, all above 0"),
        ({"init_args": {"penalties": []}}, r"penalties \[\]: give one or more, all above 0"),
    ],
)
def test_settings_that_make_no_probe_are_refused(changes, said, tmp_path):
    with pytest.raises(Exception, match=said):
        fit.main(config_of(tmp_path, "wrong", [5, 6, 7], **changes))
