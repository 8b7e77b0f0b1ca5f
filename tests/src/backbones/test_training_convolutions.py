"""Networks with convolutions learn digits in a run of seconds, to above 90 % of held-out ones."""

from functools import partial

import pytest

from src.backbones import EfficientNet, LambdaResNet, ResNet
from tests.support.training import share_of_digits

BACKBONES = {  # how it is built, learning rate, epochs
    "LambdaResNet": (partial(LambdaResNet, depth=26), 1e-3, 3),
    "ResNet": (partial(ResNet, name="resnet18"), 1e-3, 3),
    # halves the 8x8 pixels five times: its narrow layers want a high rate, its batch norms time
    "EfficientNet": (EfficientNet, 1e-2, 10),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_digits_are_learned(name):
    assert share_of_digits(*BACKBONES[name]) > 0.9
