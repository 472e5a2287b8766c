"""Training: one loop, its contract, and what docks to it."""
