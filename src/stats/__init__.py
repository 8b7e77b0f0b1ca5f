"""Inference about differences between variants: estimates, tables of scores, verdicts, claims."""
