"""What the commands with a config share: their options, and how a config becomes model, data, trainer and run folder."""

from .base import ByteBenchCLI, check_options

__all__ = ["ByteBenchCLI", "check_options"]
