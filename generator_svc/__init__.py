"""Lets the policy write self-edits."""
