"""Encoded rows between reading and sorting: in memory while few, else in files by case."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Key: TypeAlias = tuple[str, str]
Chunk: TypeAlias = dict[Key, NDArray[Any]]

CASE: Key = ("case", "")
ROW: Key = ("row", "")
TIME: Key = ("time", "")
# 64 files keep a partition of a billion events near 16 million rows.
PARTITIONS = 64
_MISSING = {"codes": np.int32(-1), "numbers": np.float64(np.nan)}


class Spool:
    """Chunks of rows (arrays of one length by key), given back in partitions of whole cases.

    Beyond `memory_bytes`, chunks are cut by case code modulo PARTITIONS and appended to one file
    a partition in `folder`. Rows keep the order in which they came.
    """

    def __init__(self, memory_bytes: int, folder: str | Path | None) -> None:
        self._most = memory_bytes
        self._held = 0
        self._chunks: list[Chunk] = []
        self._keys: list[list[Key]] = []
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_on_disk(self) -> bool:
        """Whether rows were moved to files."""
        return self._folder is not None

    def add(self, chunk: Chunk) -> None:
        """Take the next rows."""
        self._chunks.append(chunk)
        self._held += sum(array.nbytes for array in chunk.values())
        if self._held > self._most:
            self._spill()

    def partitions(self, keys: Mapping[Key, np.dtype[Any]]) -> Iterator[Chunk]:
        """Yield whole cases with the given keys; a key that a chunk lacks is missing there."""
        if not self.is_on_disk:
            yield _join(self._chunks, keys)
            return
        self._spill()
        for part in range(PARTITIONS):
            yield _join(list(self._load(part)), keys)

    def close(self) -> None:
        """Delete the files."""
        self._chunks = []
        if self._folder is not None:
            self._folder.cleanup()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="hiddenstate-", dir=self._parent)
        for chunk in self._chunks:
            keys = list(chunk)
            parts = chunk[CASE] % PARTITIONS
            order = np.argsort(parts, kind="stable")
            cuts = np.searchsorted(parts[order], np.arange(PARTITIONS + 1))
            ordered = [chunk[key][order] for key in keys]
            for part in range(PARTITIONS):
                with self._file(part).open("ab") as file:
                    for array in ordered:
                        np.save(file, array[cuts[part] : cuts[part + 1]], allow_pickle=False)
            self._keys.append(keys)
        self._chunks, self._held = [], 0

    def _load(self, part: int) -> Iterator[Chunk]:
        with self._file(part).open("rb") as file:
            for keys in self._keys:
                yield {key: np.load(file, allow_pickle=False) for key in keys}

    def _file(self, part: int) -> Path:
        return Path(self._folder.name if self._folder else "") / f"{part}.npy"


def _join(chunks: list[Chunk], keys: Mapping[Key, np.dtype[Any]]) -> Chunk:
    joined: Chunk = {}
    for key, dtype in keys.items():
        parts = [
            chunk[key] if key in chunk else np.full(len(chunk[CASE]), _MISSING[key[0]])
            for chunk in chunks
        ]
        joined[key] = np.concatenate(parts) if parts else np.empty(0, dtype)
    return joined
