"""Asks an adapted model questions and grades its answers."""
