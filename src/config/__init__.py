"""Command-line parsing, trusted packages in configs, and one-line error messages."""
