"""Image classification data sets."""
