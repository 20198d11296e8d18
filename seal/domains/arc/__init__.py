"""The few-shot domain: a puzzle of coloured grids, and an edit that says how to train on it."""
