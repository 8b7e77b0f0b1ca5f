"""Backbones learn in a run of seconds: handwritten digits, and sounds of dialled digits, to above 90 % of held-out ones."""

from functools import partial

import pytest
import torch

from datamodules import ByteArrayDataModule, Dialpad, Digits
from src.backbones import EfficientNet, LambdaNet, LambdaResNet, Perceiver, ResNet, Transformer, ViT
from src.metrics.classification import average_precision_per_class
from src.tasks import Classification

BACKBONES = {  # how it is built, learning rate, epochs
    "Perceiver": (
        partial(Perceiver, num_latents=16, latent_dim=64, cross_attends=2, self_attends_per_block=1, self_heads=4),
        3e-3,
        16,
    ),
    "LambdaNet": (partial(LambdaNet, widths=(32, 64), blocks_per_stage=1), 3e-3, 8),
    "ViT": (partial(ViT, name="vit_tiny_patch16_224", positions=True, patch=2, depth=2), 2e-3, 8),
    "Transformer": (partial(Transformer, dim=64, depth=2, heads=4), 3e-3, 8),
    "LambdaResNet": (partial(LambdaResNet, depth=26), 1e-3, 3),
    "ResNet": (partial(ResNet, name="resnet18"), 1e-3, 3),
    # halves the 8x8 pixels five times: its narrow layers want a high rate, its batch norms time
    "EfficientNet": (EfficientNet, 1e-2, 10),
}


def train(data: ByteArrayDataModule, model: Classification, lr: float, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loader = data.loader("train", training=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(loader), pct_start=0.2)
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for compact in loader:
            batch = data.flatten(compact)
            optimizer.zero_grad()
            model.loss(model(batch.inputs), batch.target).mean().backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def scores(data: ByteArrayDataModule, model: Classification) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and targets of the validation split."""
    model.eval()
    batches = [data.flatten(compact) for compact in data.loader("val")]
    found = [(model(batch.inputs)[batch.weight > 0], batch.target[batch.weight > 0]) for batch in batches]
    return torch.cat([score for score, _ in found]), torch.cat([target for _, target in found])


@pytest.mark.parametrize("name", BACKBONES)
def test_digits_are_learned(name):
    backbone, lr, epochs = BACKBONES[name]
    torch.manual_seed(0)
    data = Digits(batch_size=64)
    # with one channel, torch would take the slower layout: an EfficientNet's steps last three times as long
    model = Classification(data.spec, backbone).to(memory_format=torch.channels_last)
    train(data, model, lr, epochs)
    score, target = scores(data, model)
    assert len(target) == 300
    assert (score.argmax(1) == target).double().mean() > 0.9


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
