"""The site: a static leaderboard of all experiments, and the check of what is submitted to it."""
