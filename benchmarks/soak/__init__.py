"""Hundreds of adapters through a few slots of one engine: none lost, memory flat, runs fair."""
