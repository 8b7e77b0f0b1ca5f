"""Trivial baselines: what they see they learn, what is kept of them predicts the same, and they run like any model."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from datamodules import ByteArray, DataSpec, ModalitySpec, UserError
from datamodules.core.flatten import GridModality
from src.api import evaluate, fit
from src.tasks import Trivial
from src.tasks.classifiers import TREES, fit_forest, fit_logistic, fit_majority, fit_ridge, scores_of
from src.tasks.handmade import byte_n_grams, hog, log_mel_statistics, shape_statistics


def array(values: torch.Tensor, **others) -> ByteArray:
    return ByteArray(values, torch.zeros(values.shape[1], 1), **others)


def test_log_mel_statistics_tell_pitch_and_not_phase():
    spec = ModalitySpec(128, 1, 64, (64,), 1, "audio", 8000.0)
    time = torch.arange(8192) / 8000

    def tone(hertz: float, phase: float) -> np.ndarray:
        return log_mel_statistics(spec, array(torch.sin(6.2832 * hertz * time + phase).reshape(1, 64, 128)))

    low, shifted, high = tone(300, 0), tone(300, 1), tone(1500, 0)
    assert low.shape == (1, 80)
    assert np.abs(low - shifted).mean() < 0.05 * np.abs(low - high).mean()


def test_shape_statistics_do_not_depend_on_the_order_of_points():
    points = torch.randn(2, 200, 3)
    spec = ModalitySpec(3, 1, 200, None, 3, "points")
    found = shape_statistics(spec, array(points))
    assert found.shape == (2, 25)
    np.testing.assert_allclose(found, shape_statistics(spec, array(points[:, torch.randperm(200)])), atol=1e-9)
    stretched = points * torch.tensor([3.0, 1.0, 1.0])
    assert shape_statistics(spec, array(stretched))[0, 0] == pytest.approx(3 * found[0, 0])


def test_hog_tells_the_direction_of_an_edge_and_not_its_contrast():
    spec = ModalitySpec(1, 1, 256, (16, 16), 2, "image")
    ramp = torch.arange(16.0).expand(16, 16)

    def described(image: torch.Tensor) -> np.ndarray:
        return hog(spec, array(image.reshape(1, 256, 1), grid=(16, 16)))

    np.testing.assert_allclose(described(ramp), described(5 * ramp), atol=1e-6)
    np.testing.assert_allclose(described(ramp), described(-ramp), atol=1e-6)  # directions have no sign
    assert np.abs(described(ramp) - described(ramp.T)).max() > 0.4


@pytest.mark.parametrize("channels", [1, 3])
def test_hog_of_patches_equals_that_of_their_pixels(channels):
    images = torch.rand(2, 16, 16, channels)
    whole, patches = (GridModality((16, 16), channels, bands=2, patch=(side, side)) for side in (1, 4))
    np.testing.assert_allclose(hog(patches.spec, patches(images)), hog(whole.spec, whole(images)), atol=1e-6)
    with pytest.raises(UserError, match="needs pixels or square patches"):
        hog(ModalitySpec(24, 1, 64, (8, 8), 2, "image"), array(torch.zeros(1, 64, 24)))


def test_byte_n_grams_leave_padding_out():
    symbols = torch.tensor([[97, 98, 99, 0, 0], [97, 98, 99, 97, 98]])
    values, mask = torch.nn.functional.one_hot(symbols, 256).float(), symbols > 0
    spec = ModalitySpec(256, 1, 5, (5,), 1, "text")
    padded = byte_n_grams(spec, array(values, mask=mask))
    alone = byte_n_grams(spec, array(values[:1, :3]))
    assert abs(padded[:1] - alone).max() == 0
    assert padded[0].nnz == 6  # a, b, c, ab, bc, abc
    assert padded[1].nnz == 9


def test_what_is_kept_of_a_classifier_predicts_what_scikit_learn_does():
    generator = np.random.default_rng(0)
    x, new = generator.normal(size=(120, 5)), generator.normal(size=(40, 5))
    y = np.array([0, 1, 3])[(x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)]  # no sample is of class 2
    forest = RandomForestClassifier(TREES, random_state=7).fit(x.astype(np.float32), y)
    found = np.exp(scores_of(fit_forest(x, y, 4, 7), new))
    np.testing.assert_allclose(found[:, [0, 1, 3]], forest.predict_proba(new.astype(np.float32)), atol=1e-9)
    assert found[:, 2].max() < 1e-9
    for target in (y, (y > 0).astype(int)):
        scaled = (x - x.mean(axis=0)) / x.std(axis=0)
        wanted = LogisticRegression(max_iter=2000).fit(scaled, target)
        predicted = scores_of(fit_logistic(x, target, 4, 0), new).argmax(axis=1)
        assert (predicted == wanted.predict((new - x.mean(axis=0)) / x.std(axis=0))).all()


def test_labels_that_are_independent_are_each_learned():
    x = np.random.default_rng(1).normal(size=(300, 4))
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0, np.ones(300, bool), np.zeros(300, bool)], axis=1).astype(np.int64)
    for fit_to in (fit_logistic, fit_ridge):
        scores = scores_of(fit_to(x, y, 4, 0), x)
        for label in (0, 1):
            assert np.corrcoef(scores[:, label], y[:, label])[0, 1] > 0.7
        assert (scores[:, 2] > scores[:, 3]).all()
    shares = np.exp(scores_of(fit_majority(x, y, 4, 0), x[:1]))[0]
    np.testing.assert_allclose(shares[:3], y.mean(axis=0)[:3])


def test_a_method_that_the_data_have_nothing_for_is_told(image_spec):
    with pytest.raises(
        UserError, match="the baseline log_mel reads audio or spectrogram, these data have series: choose"
    ):
        Trivial(image_spec, "log_mel")
    detection = DataSpec(image_spec.modalities, "detection", ("a",))
    with pytest.raises(UserError, match="Trivial needs single_label or multi_label data"):
        Trivial(detection)


@pytest.mark.integration
@pytest.mark.parametrize(("method", "least", "most"), [("hog", 0.9, 1.0), ("majority", 0.05, 0.15)])
def test_a_baseline_is_a_run_like_any_other_whatever_its_budget(method, least, most, tmp_path):
    options = {"model": "src.tasks.Trivial", "model.method": method, "runs_dir": tmp_path, "trainer.max_epochs": 7}
    run = fit("digits_perceiver", options=options)
    found = run.results()
    assert least <= found.metrics["test"]["top1"] <= most
    assert (found.steps, found.parameters, found.flops_per_example) == (1, 0, 0)
    assert (run.folder / "predictions.npz").is_file()
    again = evaluate(run)
    assert again["top1"] == found.metrics["test"]["top1"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("data", "method"), [("LanguageId", "log_mel"), ("Furniture", "shape"), ("Text", "byte_n_grams")]
)
def test_baselines_read_the_data_that_they_are_for(data, method, tiny, tmp_path):
    options = {"data": f"datamodules.{data}", "data.batch_size": 4, "runs_dir": tmp_path}
    options |= {f"data.{name}": value for name, value in tiny.options(data).items()}
    run = fit("digits_perceiver", options=options | {"model": "src.tasks.Trivial", "model.method": method})
    assert run.results().metrics["test"]["top1"] > 0
    assert evaluate(run)["top1"] == run.results().metrics["test"]["top1"]
