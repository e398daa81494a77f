"""What a distribution function in equilibrium implies: accelerations, masses, and their errors."""
