"""The lambda layer and networks built from it (LambdaNetworks)."""

from .lambda_layer import LambdaLayer
from .lambda_net import LambdaNet
from .lambda_resnet import LambdaResNet

__all__ = ["LambdaLayer", "LambdaNet", "LambdaResNet"]
