"""Metrics, and the one registry of their names, units and directions."""
