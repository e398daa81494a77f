"""Stellar systems in equilibrium: distribution function, gravity, and samples."""
