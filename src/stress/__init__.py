"""How a finished run fails: damaged or missing inputs, and how much its probabilities are worth."""
