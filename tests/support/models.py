"""Small models with samples of some data."""

from functools import partial

from datamodules import ByteArrayDataModule
from src.backbones import Perceiver
from src.pictures.samples import load_samples
from src.tasks import Classification

SMALL_PERCEIVER = partial(
    Perceiver, num_latents=6, latent_dim=16, cross_attends=2, self_attends_per_block=1, self_heads=2
)


def classified(data: ByteArrayDataModule, count: int = 3, backbone=SMALL_PERCEIVER):
    task = Classification(data.spec, backbone).eval()
    return task, load_samples(task, data, "test", count)
