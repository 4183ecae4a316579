"""The model on disk: specification, weights, floors, metrics, model card, fingerprint."""

from hiddenstate.artifact.folder import Artifact, Spec, fingerprint, load, save
from hiddenstate.artifact.spec import AnyLayerSpec, HeadSpec, LayerSpec, ModelSpec, Output
from hiddenstate.artifact.transformer import KVCache, TransformerSpec
from hiddenstate.artifact.translator import TranslatorSpec

__all__ = [
    "AnyLayerSpec",
    "Artifact",
    "HeadSpec",
    "KVCache",
    "LayerSpec",
    "ModelSpec",
    "Output",
    "Spec",
    "TransformerSpec",
    "TranslatorSpec",
    "fingerprint",
    "load",
    "save",
]
