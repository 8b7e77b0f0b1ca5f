"""Backbones learn: handwritten digits to above 90 % of held-out images in a run of seconds."""

from functools import partial

import pytest
import torch

from datamodules import Digits
from src.backbones import LambdaNet, LambdaResNet, Perceiver, ResNet, Transformer
from src.tasks import Classification

BACKBONES = {  # how it is built, learning rate, epochs
    "Perceiver": (
        partial(Perceiver, num_latents=16, latent_dim=64, cross_attends=2, self_attends_per_block=1, self_heads=4),
        3e-3,
        16,
    ),
    "LambdaNet": (partial(LambdaNet, widths=(32, 64), blocks_per_stage=1), 3e-3, 8),
    "LambdaResNet": (partial(LambdaResNet, depth=26), 1e-3, 4),
    "ResNet": (partial(ResNet, name="resnet18"), 1e-3, 4),
    "Transformer": (partial(Transformer, dim=64, depth=2, heads=4), 3e-3, 8),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_digits_are_learned(name):
    torch.manual_seed(0)
    backbone, lr, epochs = BACKBONES[name]
    data = Digits(batch_size=64)
    model = Classification(data.spec, backbone)
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
    model.eval()
    hits = seen = 0.0
    with torch.no_grad():
        for compact in data.loader("val"):
            batch = data.flatten(compact)
            hits += ((model(batch.inputs).argmax(1) == batch.target) * batch.weight).sum().item()
            seen += batch.weight.sum().item()
    assert seen == 300
    assert hits / seen > 0.9
