"""What the engine is worth, as ratios: every figure beside its opponent in one process on one machine. `make bench` runs them all."""
