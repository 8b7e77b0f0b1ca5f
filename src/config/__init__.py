"""Configs and commands: parsing, trust, and errors in one line."""
