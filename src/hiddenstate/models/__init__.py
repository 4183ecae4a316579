"""From a ModelSpec to a torch module."""

from hiddenstate.models.sequence import Batch, Regularisation, SequenceModel

__all__ = ["Batch", "Regularisation", "SequenceModel"]
