"""Learn a distribution function with ensembles of normalizing flows."""
