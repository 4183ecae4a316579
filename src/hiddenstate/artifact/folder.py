"""The model on disk: a folder whose manifest names every file and its checksum.

    manifest.json          format, fingerprint, SHA-256 of every file; written last
    spec.json              ModelSpec, or TranslatorSpec
    weights.safetensors    float32 arrays by name
    floors.safetensors     what the scores are compared with, fitted on the training part
    floors.json            the same floors' settings
    metrics.json           scores of the held-back part
    MODEL_CARD.md          the same for people

The fingerprint is the SHA-256 over the specification and the weights: two models with the same
fingerprint give the same predictions. A folder without a manifest is a run that has not finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from hiddenstate.artifact.files import (
    read_bytes,
    read_json,
    sha256_of,
    write_atomically,
    write_json,
)
from hiddenstate.artifact.spec import ModelSpec
from hiddenstate.artifact.translator import FORMAT as TRANSLATOR
from hiddenstate.artifact.translator import TranslatorSpec
from hiddenstate.errors import ArtifactError

FORMAT = "hiddenstate.artifact"
VERSION = 1
ARRAYS_LIMIT_BYTES = 8 * 1024**3
FILES = (
    "spec.json",
    "weights.safetensors",
    "floors.json",
    "floors.safetensors",
    "metrics.json",
    "MODEL_CARD.md",
)

Arrays = dict[str, np.ndarray]
Spec: TypeAlias = ModelSpec | TranslatorSpec


@dataclass(frozen=True)
class Artifact:
    """A fitted model with what is needed to run, judge and describe it."""

    spec: Spec
    weights: Arrays
    floors: Mapping[str, Any]
    floor_arrays: Arrays
    metrics: Mapping[str, Any]
    card: str = ""
    fingerprint: str = field(default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.spec, self.weights))


def fingerprint(spec: Spec, weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the canonical specification and every weight's name, shape and bytes."""
    digest = hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode())
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(artifact: Artifact, folder: str | Path) -> None:
    """Write the artifact into folder; the manifest comes last and makes it whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    write_json(folder / "spec.json", artifact.spec.to_json())
    write_atomically(folder / "weights.safetensors", _stored(artifact.weights))
    write_json(folder / "floors.json", artifact.floors)
    write_atomically(folder / "floors.safetensors", _stored(artifact.floor_arrays))
    write_json(folder / "metrics.json", artifact.metrics)
    write_atomically(folder / "MODEL_CARD.md", artifact.card.encode())
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": artifact.fingerprint,
        "files": {name: sha256_of(folder / name) for name in FILES},
    }
    write_json(folder / "manifest.json", manifest)


def _stored(arrays: Arrays) -> bytes:
    # safetensors writes memory as it lies: a transposed array would come back as another one.
    stored: bytes = save_safetensors({k: np.asarray(v, order="C") for k, v in arrays.items()})
    return stored


def load(folder: str | Path) -> Artifact:
    """Read and check an artifact; ArtifactError when it is foreign, unfinished or damaged."""
    folder = Path(folder)
    promised = _check(folder)
    artifact = Artifact(
        spec=_spec(read_json(folder / "spec.json")),
        weights=_read_arrays(folder / "weights.safetensors"),
        floors=read_json(folder / "floors.json"),
        floor_arrays=_read_arrays(folder / "floors.safetensors"),
        metrics=read_json(folder / "metrics.json"),
        card=read_bytes(folder / "MODEL_CARD.md", 1 << 24).decode("utf-8", "replace"),
    )
    for name, array in artifact.weights.items():
        wrong = int((~np.isfinite(array)).sum())
        if array.dtype != np.float32 or wrong:
            raise ArtifactError(
                f"{folder}: weight {name} {list(array.shape)} is of type {array.dtype} "
                f"and holds {wrong} NaN or infinite values.",
                "Every weight must be a finite float32 number.",
                "Fit the model again.",
            )
    if artifact.fingerprint != promised:
        raise ArtifactError(
            f"{folder} holds a model with fingerprint {artifact.fingerprint[:12]}; its manifest "
            f"says {str(promised)[:12]}.",
            "spec.json and the weights together make the fingerprint.",
            "One of them was changed: restore the folder from a copy, or fit the model again.",
        )
    return artifact


def _check(folder: Path) -> object:
    """Check the manifest and every file's checksum; return the fingerprint that it promises."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ArtifactError(
            f"{folder} {what}.",
            "A run folder written by `hiddenstate fit --out` was expected.",
            "Give the folder that `hiddenstate fit` named when it finished.",
        )
    if not (folder / "manifest.json").exists():
        if (folder / "checkpoint").is_dir():
            raise ArtifactError(
                f"{folder} is a run that has not finished.",
                "A finished run has a manifest.json.",
                "Finish it with the same `hiddenstate fit` command and --resume.",
            )
        raise ArtifactError(
            f"{folder} has no manifest.json.",
            "A run folder written by `hiddenstate fit --out` was expected.",
            "Give the folder that `hiddenstate fit` named when it finished.",
        )
    manifest = read_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise ArtifactError(
            f"{folder}/manifest.json has format {manifest.get('format')!r}, "
            f"version {manifest.get('version')!r}.",
            f"This hiddenstate reads format {FORMAT!r}, version {VERSION}.",
            "Use the version of hiddenstate that wrote it, or fit the model again.",
        )
    sums = manifest.get("files")
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise ArtifactError(
                f"{folder} lacks {name}.",
                f"An artifact holds {', '.join(FILES)}.",
                "Restore the file from a copy, or fit the model again.",
            )
        if not isinstance(sums, dict) or sums.get(name) != sha256_of(path):
            raise ArtifactError(
                f"{path} was changed or damaged after it was written (its SHA-256 differs).",
                "The manifest holds the checksum of every file.",
                "Restore the folder from a copy, or fit the model again.",
            )
    return manifest.get("fingerprint")


def _read_arrays(path: Path) -> Arrays:
    content = read_bytes(path, ARRAYS_LIMIT_BYTES)
    try:
        return load_safetensors(content)
    except (SafetensorError, ValueError, KeyError) as problem:
        raise ArtifactError(
            f"{path} is not a whole safetensors file ({problem}).",
            "It was written by `hiddenstate fit`.",
            "Restore the file from a copy, or fit the model again.",
        ) from None


def _spec(value: Mapping[str, Any]) -> Spec:
    kind = TranslatorSpec if value.get("format") == TRANSLATOR else ModelSpec
    return kind.from_json(value)
