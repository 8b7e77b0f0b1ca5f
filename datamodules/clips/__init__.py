"""Audio-visual clips."""
