"""Where sums over samples are computed; the solver asks a backend for nothing else."""
