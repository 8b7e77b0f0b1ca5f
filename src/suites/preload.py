"""What the process that runs are forked from imports."""

import os
from importlib import import_module

from ..config.lean_imports import import_lean
from ..config.package import NAME

os.setpgrp()  # Ctrl-C at a terminal reaches the suite alone, which passes it on once
import_lean()
import_module(f"{NAME}.cli")
import_module("timm.optim")  # most configs name its LAMB
