"""What the engine is worth, as ratios.

Every figure beside its opponent in one process on one machine. `make bench` runs them all.
"""
