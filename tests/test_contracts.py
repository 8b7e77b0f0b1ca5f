"""What others build on: a third-party backbone, task and metric train through src.fit; what breaks a contract is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch

import src.compare as compare
import src.evaluate as evaluate
import src.fit as fit
from datamodules import DataSpec, Diabetes, Digits, UserError
from src.backbones import Backbone
from src.metrics.registry import METRICS, Metric, register
from src.runs.folder import Run
from src.runs.metrics_log import MetricsLog
from src.runs.results import SCHEMA, Results
from src.tasks import Classification, Regression
from src.tasks.base import Task
from src.training.checkpointing import Checkpointing
from tests.support import ROOT

THIRD_PARTY = '''
import torch
from torch import nn
from src.backbones import Backbone
from src.metrics.classification import ScoreMetrics
from src.metrics.registry import Metric, register
from src.tasks.base import Task

register(Metric("mean_absolute_error", "MAE", unit="classes", higher_is_better=False, main=True))


class MeanPool(Backbone):
    """The mean over all elements of all modalities."""

    def __init__(self, data_spec, dim: int = 16) -> None:
        super().__init__()
        self.num_features = dim
        channels = {name: m.channels + m.position_channels for name, m in data_spec.modalities.items()}
        self.maps = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in channels.items()})

    def forward(self, inputs):
        return torch.stack([self.maps[n](x.concat()).relu().mean(dim=1) for n, x in inputs.items()], dim=1)

    def receptive_field(self) -> int:
        return 1


class AbsoluteError(ScoreMetrics):
    definition = "mean_absolute_error: of the class number"

    def predicted(self, scores):
        return {"scores": scores}

    def values(self, scores, target):
        return {"mean_absolute_error": (scores[:, 0] - target).abs().mean()}


class ClassNumber(Task):
    """Predicts the number of the class."""

    tasks = ("single_label",)

    def __init__(self, data_spec, backbone: type, optimizer=torch.optim.AdamW) -> None:
        super().__init__(data_spec, backbone, optimizer)
        self.head = nn.Linear(self.backbone.num_features, 1)
        self.set_metrics(AbsoluteError, "mean_absolute_error")

    def forward(self, inputs):
        return self.head(self.backbone(inputs).mean(dim=1))

    def training_step(self, batch, batch_idx):
        return self.mean_loss((self(batch.inputs)[:, 0] - batch.target).abs(), batch)

    def evaluate(self, batch, split, metrics):
        metrics.update(self(batch.inputs), batch.target, batch.weight, batch.keys)
'''


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """A package `elsewhere` with a backbone, a metric and a task, and a config of them; the registry is restored."""
    code = THIRD_PARTY.replace("backbone: type,", "backbone: Callable[[DataSpec], Backbone],").replace(
        "import torch\n", "from collections.abc import Callable\nimport torch\nfrom datamodules import DataSpec\n", 1
    )
    (tmp_path / "elsewhere.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(METRICS)
    config = {
        "data": {"class_path": "datamodules.Digits"},
        "model": {
            "class_path": "elsewhere.ClassNumber",
            "init_args": {"backbone": {"class_path": "elsewhere.MeanPool", "init_args": {"dim": 8}}},
        },
        "trainer": {"max_epochs": 2},
        "runs_dir": str(tmp_path / "runs"),
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    yield tmp_path / "config.yaml"
    METRICS.clear()
    METRICS.update(before)
    sys.modules.pop("elsewhere", None)


def test_a_third_partys_backbone_task_and_metric_are_trained_tested_and_ranked(third_party):
    run = fit.main(["--config", str(third_party), "--trust", "[elsewhere]"])
    results = run.results()
    assert results.main_metric == "mean_absolute_error"
    assert 0 < results.metrics["test"]["mean_absolute_error"] < 5
    best = run.folder / "checkpoints" / "best.ckpt"
    assert best.is_file()
    comparison = compare.main([str(run.folder)])
    assert comparison.metric == "mean_absolute_error"


def test_regression_learns_and_keeps_the_checkpoint_with_the_lowest_error(tmp_path):
    config = ROOT / "configs" / "diabetes_transformer.yaml"
    run = fit.main(["--config", str(config), "--runs_dir", str(tmp_path), "--trainer.max_epochs", "8"])
    results = run.results()
    assert results.main_metric == "rmse"
    assert results.metrics["test"]["rmse"] < 0.9  # the mean has 0.957
    column = [line.split(",") for line in (run.folder / "metrics.csv").read_text().splitlines()]
    place = column[0].index("val/rmse")
    lowest = min(float(row[place]) for row in column[1:] if row[place])
    best = evaluate.main(["--run", str(run.folder), "--split", "val", "--checkpoint", "best"])
    assert best["rmse"] == lowest


@pytest.mark.parametrize("direction", [True, False])
def test_best_is_the_highest_or_the_lowest_as_the_registry_says(direction, tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, "made_up", Metric("made_up", "made up", higher_is_better=direction))
    callback = Checkpointing(tmp_path, "made_up", MetricsLog(tmp_path))
    callback.best = 0.5
    assert (callback.is_better(0.6), callback.is_better(0.4)) == (direction, not direction)
    assert not callback.is_better(0.5)


def test_an_incomplete_backbone_or_task_cannot_be_built(image_spec):
    class NoField(Backbone):
        def forward(self, inputs):
            return torch.zeros(1, 1, 1)

    with pytest.raises(TypeError, match="receptive_field"):
        NoField()

    class Half(Task):
        tasks = ("single_label",)

        def training_step(self, batch, batch_idx):
            return None

    with pytest.raises(TypeError, match="evaluate"):
        Half(image_spec, NoField)


def test_data_of_another_task_and_unknown_metrics_are_refused(image_spec):
    with pytest.raises(UserError, match="Regression needs regression data, these are single_label"):
        Regression(Digits().spec, None)
    with pytest.raises(UserError, match="Classification needs single_label or multi_label data, these are regression"):
        Classification(Diabetes().spec, None)
    with pytest.raises(UserError, match="no metric is called 'top2'"):
        Checkpointing(Path("nowhere"), "top2", MetricsLog(Path("nowhere")))
    with pytest.raises(UserError, match="a metric called 'top1' exists already"):
        register(Metric("top1", "other"))


def test_an_unknown_task_of_data_is_refused():
    with pytest.raises(UserError, match="ranking"):
        DataSpec({}, "ranking", ())  # type: ignore


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": "0"}, "seed is '0'"),
        ({"metrics": None}, "metrics is None"),
        ({"steps": True}, "steps is True"),
        ({"schema": 99}, "newer version"),
    ],
)
def test_results_that_do_not_fit_the_schema_are_refused_in_one_line(changes, said):
    content = json.loads((ROOT / "tests/first_house/finished/seed0/results.json").read_text())
    with pytest.raises(UserError, match=said):
        Results.from_dict({**content, **changes}, "results.json")
    del content["parameters"]
    with pytest.raises(UserError, match=r"results\.json has no 'parameters'"):
        Results.from_dict(content, "results.json")


def test_results_written_are_the_results_read():
    results = Run(ROOT / "tests/first_house/finished/seed0").results()
    assert (results.main_metric, results.schema) == ("top1", SCHEMA)
    assert Results.from_dict(json.loads(json.dumps(results.to_dict())), "here") == results
