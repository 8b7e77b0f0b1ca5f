"""Metrics against scikit-learn's, and on several real processes against one."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from torch import Tensor

from datamodules import UserError
from src.metrics.classification import MultiLabelMetrics, SingleLabelMetrics, average_precision_per_class
from src.metrics.regression import RegressionMetrics


def labelled_scores(samples: int = 61, classes: int = 7, levels: int | None = None) -> tuple[Tensor, Tensor]:
    """Scores, with ties where there are but a few levels, and labels in which class 3 has no positive."""
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    if levels:
        scores = (scores * levels).round() / levels
    target = (torch.rand(samples, classes, generator=generator) < 0.3).long()
    target[:, 3] = 0
    return scores, target


def names(samples: int) -> list[str]:
    return [f"sample{n}" for n in range(samples)]


@pytest.mark.parametrize("levels", [None, 5, 1])
def test_average_precision_equals_scikit_learns_with_and_without_ties(levels):
    scores, target = labelled_scores(levels=levels)
    found = average_precision_per_class(scores, target)
    for label in {*range(7)} - {3}:
        wanted = average_precision_score(target[:, label].numpy(), scores[:, label].numpy())
        assert found[label].item() == pytest.approx(wanted, rel=1e-12)
    assert found[3].isnan()


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_of_rare_positives_in_float32_equals_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((int(rng.integers(2, 400)), 5)).astype(np.float32).round(int(rng.integers(0, 4)))
    target = rng.random(scores.shape) < 0.01
    target[rng.integers(len(scores)), :] = True
    found = average_precision_per_class(torch.from_numpy(scores), torch.from_numpy(target))
    wanted = [average_precision_score(target[:, label], scores[:, label]) for label in range(5)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)


def test_average_precision_where_all_scores_are_equal_is_the_share_of_positives():
    target = torch.tensor([[1], [0], [0], [1], [0]])
    assert average_precision_per_class(torch.zeros(5, 1), target).item() == pytest.approx(0.4, rel=1e-15)


def test_map_is_the_mean_over_classes_with_a_positive_and_says_how_many():
    scores, target = labelled_scores()
    metrics = MultiLabelMetrics()
    metrics.update(scores, target, torch.ones(61), names(61))
    found = metrics.compute()
    kept = [label for label in range(7) if label != 3]
    as_kept = scores.float().numpy()[:, kept]
    wanted = average_precision_score(target.numpy()[:, kept], as_kept, average="macro")
    assert found["map"].item() == pytest.approx(wanted, rel=1e-12)
    assert (found["map_classes"].item(), found["samples"].item()) == (6, 61)


@pytest.mark.parametrize("kind", [MultiLabelMetrics, SingleLabelMetrics])
def test_samples_of_weight_zero_are_left_out(kind):
    scores, target = labelled_scores()
    target = target if kind is MultiLabelMetrics else target.argmax(dim=1)
    weight = (torch.rand(61) < 0.7).float()
    real = weight > 0
    padded, plain = kind(), kind()
    padded.update(scores, target, weight, names(61))
    plain.update(scores[real], target[real], torch.ones(int(real.sum())), names(int(real.sum())))
    assert padded.compute() == plain.compute()
    assert padded.compute()["samples"] == real.sum()


def test_top1_and_top5_equal_scikit_learns():
    scores, _ = labelled_scores(samples=200)
    target = torch.randint(7, (200,))
    metrics = SingleLabelMetrics()
    metrics.update(scores[:90], target[:90], torch.ones(90), names(200)[:90])
    metrics.update(scores[90:], target[90:], torch.ones(110), names(200)[90:])
    found = metrics.compute()
    for k in (1, 5):
        wanted = top_k_accuracy_score(target.numpy(), scores.numpy(), k=k, labels=np.arange(7))
        assert found[f"top{k}"].item() == wanted


def test_of_equal_scores_the_class_with_the_lower_index_ranks_first_in_top1_and_top5():
    metrics = SingleLabelMetrics()
    metrics.update(torch.zeros(21, 7), torch.arange(21) % 7, torch.ones(21), names(21))
    found = metrics.compute()
    assert found["top1"].item() == pytest.approx(1 / 7)
    assert found["top5"].item() == pytest.approx(5 / 7)
    assert set(metrics.predictions()["predicted"]) == {0}


@pytest.mark.parametrize("levels", [2, 3, 8])
def test_top1_is_the_share_of_right_predictions_and_no_higher_than_top5_with_ties(levels):
    scores, _ = labelled_scores(samples=300, levels=levels)
    target = torch.randint(7, (300,), generator=torch.Generator().manual_seed(1))
    metrics = SingleLabelMetrics()
    metrics.update(scores, target, torch.ones(300), names(300))
    found, kept = metrics.compute(), metrics.predictions()
    assert found["top1"].item() == (kept["predicted"] == kept["target"]).mean()
    assert found["top1"] < found["top5"]


@pytest.mark.parametrize("kind", [MultiLabelMetrics, SingleLabelMetrics, RegressionMetrics])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_end_the_evaluation_with_the_keys_in_one_line(kind, value):
    scores, target = labelled_scores(samples=20)
    scores[3:, 2] = value
    weight = torch.ones(20)
    weight[4] = 0  # padding may hold anything
    with pytest.raises(
        UserError, match=r"scores of 16 of 20 samples .* \(sample3, sample5, .*sample8, \.\.\.\)"
    ) as error:
        kind().update(scores, target, weight, names(20))
    assert "\n" not in str(error.value)
    weight[3:] = 0
    kind().update(scores, target, weight, names(20))


@pytest.mark.parametrize(("classes", "found"), [(5, {"top1", "samples"}), (6, {"top1", "top5", "samples"})])
def test_top5_is_left_out_with_five_classes_or_fewer(classes, found):
    metrics = SingleLabelMetrics()
    metrics.update(torch.randn(8, classes), torch.zeros(8, dtype=torch.long), torch.ones(8), names(8))
    assert set(metrics.compute()) == found


@pytest.mark.parametrize("kind", [MultiLabelMetrics, SingleLabelMetrics])
def test_windows_of_a_clip_count_as_one_with_the_mean_of_their_scores(kind):
    scores, target = labelled_scores(samples=60)
    target = target if kind is MultiLabelMetrics else target.argmax(dim=1)
    clips = torch.arange(60) // 4
    target = target[4 * clips]
    windows, means = kind(), kind()
    order = torch.randperm(60)  # windows of a clip come in any order, in any batch
    order = order[order > 2]  # and the first clip has one alone
    keys = [f"id@{n // 4}_x@{n % 4:02d}" for n in order.tolist()]
    for part in (slice(0, 13), slice(13, 57)):
        windows.update(scores[order][part], target[order][part], torch.ones(57)[part], keys[part])
    mean = scores.float().double().reshape(15, 4, 7).mean(dim=1)
    mean[0] = scores[3].float()
    means.update(mean, target[::4], torch.ones(15), names(15))
    found, wanted = windows.compute(), means.compute()
    assert found["samples"] == 15
    assert found == wanted


def test_keys_that_only_look_like_windows_stay_apart():
    metrics = SingleLabelMetrics()
    metrics.update(torch.randn(4, 5), torch.zeros(4).long(), torch.ones(4), ["a@2x", "a@3x", "b@1", "b@2"])
    assert metrics.compute()["samples"] == 4


def all_metrics(shares: list[Tensor]) -> list[dict]:
    """Both kinds of metrics and predictions of some samples, and of samples that are windows of clips, updated share by
    share; the scores have ties."""
    scores, target = labelled_scores(levels=4)
    single = scores.roll(1, 0).argmax(1)
    clips = torch.arange(61) // 3
    windows = [f"clip{row // 3}@{row % 3:02d}" for row in range(61)]
    found = []
    for metrics, labels, names_of_rows in (
        (MultiLabelMetrics(), target, names(61)),
        (SingleLabelMetrics(), single, names(61)),
        (MultiLabelMetrics(), target[3 * clips], windows),
        (SingleLabelMetrics(), single[3 * clips], windows),
    ):
        for rows in shares:
            # as a loader does: a share ends with a padding sample of weight 0
            weight = torch.cat([torch.ones(len(rows)), torch.zeros(1)])
            rows = torch.cat([rows, torch.zeros(1, dtype=torch.long)])
            keys = [names_of_rows[row] for row in rows.tolist()]
            metrics.update(scores[rows], labels[rows], weight, keys)
        values = {name: value.item() for name, value in metrics.compute().items()}
        found.append(values | {name: kept.tolist() for name, kept in metrics.predictions().items()})
    return found


def rank_metrics(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    # uneven: rank 0 has one sample in four of its part, the last rank none but padding where there are three ranks
    ranks_with_data = 2
    places = torch.arange(61)
    owner = torch.where(places % 4 == 0, 0, 1)
    own = places[owner == rank] if rank < ranks_with_data else places[:0]
    torch.save(all_metrics([own[:5], own[5:]]), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_metrics_on_several_processes_equal_one_process_to_the_last_digit(world, tmp_path):
    # forked, since importing everything anew takes longer than all else; on one thread, which survives a fork
    mp.start_processes(rank_metrics, args=(world, tmp_path), nprocs=world, start_method="fork")
    wanted = all_metrics([torch.arange(61)])
    assert [found["samples"] for found in wanted] == [61, 61, 21, 21]
    for rank in range(world):
        assert torch.load(tmp_path / f"rank{rank}.pt") == wanted
