"""How a fit proceeds: starts, iterations, alpha, checkpoints."""
