"""The losses of classification."""

from functools import partial

import pytest
import torch
from sklearn.metrics import log_loss

from datamodules import DataSpec
from src.backbones import Perceiver
from src.tasks import Classification

TINY = partial(Perceiver, num_latents=2, latent_dim=8, cross_attends=1, self_attends_per_block=1, self_heads=1)


def test_the_loss_of_several_labels_is_the_mean_of_the_classes_log_losses(clip_spec: DataSpec):
    scores, target = torch.randn(4, 2, dtype=torch.float64), torch.randint(2, (4, 2))
    found = Classification(clip_spec, TINY).loss(scores, target)
    for loss, labels, probabilities in zip(found, target, scores.sigmoid(), strict=True):
        assert loss.item() == pytest.approx(log_loss(labels.numpy(), probabilities.numpy(), labels=[0, 1]))


def test_the_loss_of_one_label_is_its_log_loss_and_smoothing_spreads_a_share_over_all_classes(image_spec: DataSpec):
    scores, target = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    surprise = -scores.log_softmax(dim=1)
    plain = surprise[torch.arange(4), target]
    torch.testing.assert_close(Classification(image_spec, TINY).loss(scores, target), plain)
    smooth = Classification(image_spec, TINY, label_smoothing=0.1).loss(scores, target)
    torch.testing.assert_close(smooth, 0.9 * plain + 0.1 * surprise.mean(dim=1))
