from .api import compare as compare
from .api import evaluate as evaluate
from .api import fit as fit
from .backbones.lambda_networks.accelerate import accelerate as accelerate
