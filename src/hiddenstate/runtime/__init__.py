"""Runs an artifact without torch."""

from hiddenstate.runtime.model import Model, Prediction

__all__ = ["Model", "Prediction"]
