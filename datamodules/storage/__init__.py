"""Local and remote shards, worker processes, and Debian packages."""
