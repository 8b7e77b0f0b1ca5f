"""Shards, local and remote; worker processes; Debian's packages."""
