"""The benchmarks of `python -m src.benchmark NAME`: one module each, whose `run(...)` returns a DataFrame."""
