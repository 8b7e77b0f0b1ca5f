"""Object detection: boxes and masks."""
