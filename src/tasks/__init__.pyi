from .classification import Classification as Classification
from .detection import Detection as Detection
from .linear_probe import LinearProbe as LinearProbe
from .regression import Regression as Regression
from .trivial import Trivial as Trivial
