"""A user's module and one batch of its arguments, run again and again under changes."""
