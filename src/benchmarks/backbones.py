"""Training step of every backbone on the same batch with the shape of Fashion-MNIST."""

from __future__ import annotations

from functools import partial

import pandas as pd
import torch

from datamodules import FashionMNIST

from ..backbones import LambdaNet, Perceiver, ResNet, Transformer
from ..tasks import Classification
from .measure import alternate, save

BACKBONES = {
    "Perceiver": partial(
        Perceiver, num_latents=32, latent_dim=96, cross_attends=2, self_attends_per_block=2, self_heads=4
    ),
    "LambdaNet": partial(LambdaNet, patch={"image": 2}),
    "ResNet-18": partial(ResNet, name="resnet18"),
    "Transformer 14x14": partial(Transformer, dim=96, depth=4, heads=4, max_side=14),
}


def run(batch: int = 16, rounds: int = 9) -> pd.DataFrame:
    """Median seconds of forward and forward + backward, and the ratio to the Perceiver."""
    spec = FashionMNIST().spec
    torch.manual_seed(0)
    inputs = spec.example_inputs(batch)
    target = torch.randint(spec.num_classes, (batch,))
    models = {name: Classification(spec, backbone) for name, backbone in BACKBONES.items()}

    def forward(model: Classification) -> None:
        with torch.no_grad():
            model(inputs)

    def train(model: Classification) -> None:
        model.loss(model(inputs), target).mean().backward()

    seconds = {
        kind: alternate({n: partial(step, m) for n, m in models.items()}, rounds, f"timing {kind}")
        for kind, step in (("forward", forward), ("forward_backward", train))
    }
    rows = []
    for name, model in models.items():
        rows.append(
            {
                "backbone": name,
                "batch": batch,
                "elements": spec.modalities["image"].elements,
                "dtype": "float32",
                "parameters": sum(p.numel() for p in model.parameters()),
                "mflops_per_example": model.flops_per_example / 1e6,
                "forward_s": seconds["forward"][name],
                "forward_backward_s": seconds["forward_backward"][name],
                "ratio": seconds["forward_backward"][name] / seconds["forward_backward"]["Perceiver"],
                "train_samples_per_s": batch / seconds["forward_backward"][name],
            }
        )
    return save(rows, "backbones")
