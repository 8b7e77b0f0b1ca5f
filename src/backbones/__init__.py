"""Backbones: `Backbone(data_spec, ...)`, called with a dict of byte arrays, give features (B, N, num_features)."""

from src.backbones.baselines import ResNet, Transformer
from src.backbones.lambda_layer import LambdaLayer
from src.backbones.lambda_net import LambdaNet
from src.backbones.perceiver import Perceiver

__all__ = ["LambdaLayer", "LambdaNet", "Perceiver", "ResNet", "Transformer"]
