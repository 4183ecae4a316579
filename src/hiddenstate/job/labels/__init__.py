"""Sequences with labels or numbers: one for each sequence, or one for each step."""
