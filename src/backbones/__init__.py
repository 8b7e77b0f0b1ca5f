"""Backbones: `Backbone(data_spec, ...)`, called with a dict of byte arrays, give features (B, N, num_features)."""

from src.backbones.baselines import EfficientNet, ResNet, Transformer, ViT
from src.backbones.lambda_layer import LambdaLayer
from src.backbones.lambda_net import LambdaNet
from src.backbones.lambda_resnet import LambdaResNet
from src.backbones.perceiver import Perceiver

__all__ = ["EfficientNet", "LambdaLayer", "LambdaNet", "LambdaResNet", "Perceiver", "ResNet", "Transformer", "ViT"]
