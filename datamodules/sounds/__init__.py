"""Sound data sets."""
