"""Small files written all or nothing and read with a size limit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiddenstate.errors import ArtifactError

JSON_LIMIT_BYTES = 256 * 1024 * 1024


def write_atomically(path: Path, content: bytes) -> None:
    """Write content so that after a crash the path holds the old bytes or the new ones."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write value as indented JSON, all or nothing; NaN is refused by raising ValueError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """Read a whole file of at most limit_bytes, or raise ArtifactError."""
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise ArtifactError(
                f"{path} is {size} bytes long.",
                f"At most {limit_bytes} bytes are read from such a file.",
                "If the folder was made by hiddenstate, it is damaged: fit the model again.",
            )
        return path.read_bytes()
    except OSError as problem:
        raise ArtifactError(
            f"{path} cannot be read ({problem.strerror}).",
            "An artifact is a folder written by `hiddenstate fit`, with all of its files.",
            "Check the path, or fit the model again.",
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise ArtifactError."""
    content = read_bytes(path, JSON_LIMIT_BYTES)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise ArtifactError(
            f"{path} is not valid JSON ({problem}).",
            "It was written as JSON by `hiddenstate fit`.",
            "The file is damaged: restore it from a copy, or fit the model again.",
        ) from None
    if not isinstance(value, Mapping):
        raise ArtifactError(
            f"{path} holds a {type(value).__name__}.",
            "A JSON object was expected.",
            "The file is damaged or not hiddenstate's: restore it, or fit the model again.",
        )
    return dict(value)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
