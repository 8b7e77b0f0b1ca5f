"""Byte arrays, the base datamodule, sample order, and errors."""
