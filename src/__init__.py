"""ByteBench's commands, models and tasks. Run them from the checkout: `python -m src.fit --help`."""
