"""Sequences with labels: one for each sequence (classify), or one for each step (label)."""
