"""Short trainings, for tests that learn something."""

from collections.abc import Callable

import torch

from datamodules import Digits
from datamodules.core.datamodule import ByteArrayDataModule
from src.tasks import Classification


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


def share_of_digits(backbone: Callable, lr: float, epochs: int) -> float:
    """Share of the held-out digits that a backbone names right after a training of seconds."""
    torch.manual_seed(0)
    data = Digits(batch_size=64)
    # with one channel, torch would take the slower layout: an EfficientNet's steps last three times as long
    model = Classification(data.spec, backbone).to(memory_format=torch.channels_last)
    train(data, model, lr, epochs)
    score, target = scores(data, model)
    assert len(target) == 300
    return (score.argmax(1) == target).double().mean().item()
