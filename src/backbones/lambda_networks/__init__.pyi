from .accelerate import TimmLambdaResNet as TimmLambdaResNet
from .lambda_layer import LambdaLayer as LambdaLayer
from .lambda_net import LambdaNet as LambdaNet
from .lambda_resnet import LambdaResNet as LambdaResNet
