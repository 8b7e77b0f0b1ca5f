"""Backbones: `Backbone(data_spec, ...)`, called with a dict of byte arrays, give features (B, N, num_features)."""

from .base import Backbone
from .baselines import EfficientNet, ResNet, Transformer, ViT
from .lambda_networks import LambdaLayer, LambdaNet, LambdaResNet
from .perceiver import Perceiver

__all__ = [
    "Backbone",
    "EfficientNet",
    "LambdaLayer",
    "LambdaNet",
    "LambdaResNet",
    "Perceiver",
    "ResNet",
    "Transformer",
    "ViT",
]
