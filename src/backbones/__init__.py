"""Backbones: `Backbone(data_spec, ...)`, called with a dict of byte arrays, give features (B, N, num_features)."""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
