"""Clips of sight and sound."""
