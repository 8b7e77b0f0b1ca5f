"""Scenes with objects: boxes and masks."""
