"""ByteBench: train and compare perception models that take any modality.

`fit`, `evaluate` and `compare` are what the commands call. Nothing heavy is imported before it is used.
"""

import sys

import lazy_loader

from datamodules.core.signals import end_at_once, on_ending_signals

# Python looks for the command that it is to run; what that imports takes seconds, in which Ctrl-C may come
if sys.argv[:1] == ["-m"]:
    on_ending_signals(end_at_once)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
