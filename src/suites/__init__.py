"""Suites: their definition, and where their runs take place."""
