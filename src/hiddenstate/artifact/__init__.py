"""The model on disk: specification, weights, floors, metrics, model card, fingerprint."""

from hiddenstate.artifact.folder import Artifact, fingerprint, load, save
from hiddenstate.artifact.spec import HeadSpec, LayerSpec, ModelSpec

__all__ = ["Artifact", "HeadSpec", "LayerSpec", "ModelSpec", "fingerprint", "load", "save"]
