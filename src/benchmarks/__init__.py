"""What `python -m src.benchmark NAME` measures: one module per name, each with a `run(...)` that returns a table."""
