"""Byte arrays, the datamodule that all data sets share, order, and errors."""
