"""One module per data set that `python -m datamodules.prepare` can put in place.

Each has `add_options(parser)`, which adds its options to the command's parser, and `prepare(options) -> str`, which does
the work and returns the line that is printed. The first line of its docstring is its help.
"""
