"""ByteBench: train and compare perception models that take any modality.

`fit`, `evaluate` and `compare` are what the commands call. Nothing heavy is imported before it is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
