from .classification import Classification as Classification
from .detection import Detection as Detection
from .linear_probe import LinearProbe as LinearProbe
from .reconstruction import Reconstruction as Reconstruction
from .regression import Regression as Regression
from .segmentation import Segmentation as Segmentation
from .trivial import Trivial as Trivial
