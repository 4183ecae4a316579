"""Runs an artifact without torch."""

from hiddenstate.runtime.model import Model, Prediction
from hiddenstate.runtime.translator import Translator

__all__ = ["Model", "Prediction", "Translator"]
