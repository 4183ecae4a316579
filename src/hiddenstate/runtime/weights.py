"""The weights of an artifact, handed out to the parts of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import ArtifactError


class Weights:
    """Weights by name, each taken once, in float32 and with the shape that the spec asks for."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the arrays of an artifact."""
        self._left = dict(arrays)

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a weight; raises ArtifactError if it is missing or has another shape."""
        array = self._left.pop(name, None)
        if array is None or array.shape != shape:
            found = "is missing" if array is None else f"has shape {list(array.shape)}"
            raise ArtifactError(
                f"The weight {name} {found}.",
                f"The specification asks for shape {list(shape)}.",
                "The weights belong to another model, or spec.json was edited: restore the "
                "folder from a copy, or fit the model again.",
            )
        return np.ascontiguousarray(array, dtype=np.float32)

    def require_all_taken(self) -> None:
        """Raise ArtifactError if a weight is left."""
        if self._left:
            raise ArtifactError(
                f"No part of the model uses these weights: {', '.join(sorted(self._left))}.",
                "Every weight has its place in the specification.",
                "The weights belong to another model: restore the folder, or fit again.",
            )
