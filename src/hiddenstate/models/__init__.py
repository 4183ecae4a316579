"""From a specification to a torch module."""

from hiddenstate.models.batch import AnyBatch, Batch, Losses, Trainable
from hiddenstate.models.sequence import Regularisation, SequenceModel

__all__ = ["AnyBatch", "Batch", "Losses", "Regularisation", "SequenceModel", "Trainable"]
