"""Data that a config alone declares."""
