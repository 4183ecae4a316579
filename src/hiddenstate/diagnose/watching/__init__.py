"""Cheap checks of a training while it runs, in any loop."""
