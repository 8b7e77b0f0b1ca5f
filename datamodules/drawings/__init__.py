"""Drawings that come as SVG: icons as pixels, as points along their outline, and as the bytes of their paths."""
