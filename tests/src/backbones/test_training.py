"""Backbones learn in a run of seconds: handwritten digits, and sounds of dialled digits, to above 90 % of held-out ones."""

from functools import partial

import pytest
import torch

from datamodules import Dialpad
from src.backbones import LambdaNet, Perceiver, Transformer, ViT
from src.metrics.classification import average_precision_per_class
from src.tasks import Classification
from tests.support.training import scores, share_of_digits, train

BACKBONES = {  # how it is built, learning rate, epochs
    "Perceiver": (
        partial(Perceiver, num_latents=16, latent_dim=64, cross_attends=2, self_attends_per_block=1, self_heads=4),
        3e-3,
        16,
    ),
    "LambdaNet": (partial(LambdaNet, widths=(32, 64), blocks_per_stage=1), 3e-3, 8),
    "ViT": (partial(ViT, name="vit_tiny_patch16_224", positions=True, patch=2, depth=2), 2e-3, 8),
    "Transformer": (partial(Transformer, dim=64, depth=2, heads=4), 3e-3, 8),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_digits_are_learned(name):
    assert share_of_digits(*BACKBONES[name]) > 0.9


def test_sounds_are_learned_by_a_tower_of_lambda_layers(tmp_path):
    torch.manual_seed(0)
    data = Dialpad(str(tmp_path), modalities=["audio"], clips=(480, 100, 20), batch_size=32)
    data.prepare_data()
    model = Classification(data.spec, partial(LambdaNet, widths=(64, 64), blocks_per_stage=1))
    train(data, model, lr=1e-2, epochs=12)
    precision = average_precision_per_class(*scores(data, model))
    heard = precision[[name.startswith("hear") for name in data.spec.classes]]
    assert len(heard) == 10
    assert heard.mean() > 0.9
