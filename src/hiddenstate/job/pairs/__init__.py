"""Pairs of texts: translation from sources to targets."""
