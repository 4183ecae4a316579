"""Signals from files of arrays: .npz, and .mat of MATLAB and Octave."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.signals import PARTS, Signal
from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema.log import Int64

# How names of parts begin in files.
_PARTS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}


def from_npz(path: Path) -> Signal:
    """Read a .npz archive of arrays.

    x        frames [N, C], or [N] of one channel
    offsets  [P + 1], where each series begins and the last one ends; one series without it
    times    [N], datetime64, or whole microseconds since 1970
    channels names [C];  ids: names of the series [P];  parts: train, validation or test [P]
    """
    arrays = _load_npz(path)
    x = arrays.get("x")
    if x is None or x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or not x.size:
        shown = "no array x" if x is None else f"x of shape {list(x.shape)} and type {x.dtype}"
        raise DataError(
            f"{path} has {shown}; its arrays are {', '.join(arrays) or 'none'}.",
            "x holds the frames, numbers of shape [N, C].",
            "Save them under that name: numpy.savez(path, x=...).",
        )
    values = x.reshape(len(x), -1).astype(np.float64)
    offsets = arrays.get("offsets", np.array([0, len(x)])).astype(np.int64)
    series = len(offsets) - 1
    times = arrays.get("times")
    sizes = {
        "channels": values.shape[1],
        "ids": series,
        "parts": series,
        "times": len(values),
    }
    wrong = [
        f"{name} {list(arrays[name].shape)}"
        for name, size in sizes.items()
        if name in arrays and arrays[name].shape != (size,)
    ]
    if offsets[0] != 0 or offsets[-1] != len(x) or (np.diff(offsets) < 0).any():
        wrong.append(f"offsets from {offsets[0]} to {offsets[-1]}")
    if wrong:
        raise DataError(
            f"{path} has arrays that do not fit x {list(x.shape)}: {', '.join(wrong)}.",
            f"There are {series} series of {len(x)} frames with {values.shape[1]} channels.",
            "Give channels [C], ids and parts [P], times [N], and offsets that rise from 0 to N.",
        )
    times_us = None if times is None else _microseconds(times, path)
    parts = [_part_of(str(name)) for name in arrays["parts"]] if "parts" in arrays else []
    if None in parts:
        raise DataError(
            f"{path} has the parts {', '.join(sorted(set(map(str, arrays['parts']))))}.",
            f"Each series is in one of {', '.join(PARTS)}.",
            "Correct the array parts, or leave it out.",
        )
    return Signal(
        tuple(map(str, arrays["ids"])) if "ids" in arrays else _numbered("series", series),
        offsets,
        values,
        tuple(map(str, arrays["channels"]))
        if "channels" in arrays
        else _numbered("channel", values.shape[1]),
        times_us,
        parts=tuple(part for part in parts if part) or None,
        time=None if times_us is None else "times",
    )


def from_mat(path: Path) -> Signal:
    """Read the series of a .mat file: matrices [T, C], alone or in cells, all of the same C.

    A variable whose name begins with train, valid or test holds the series of that part.
    """
    found: list[tuple[str, str | None, NDArray[Any]]] = []
    for name, value in _load_mat(path).items():
        cells = value.ravel() if value.dtype == object else np.array([None])
        matrices = list(cells) if value.dtype == object else [value]
        found += [
            (f"{name} {place}" if len(matrices) > 1 else name, _part_of(name), np.asarray(each))
            for place, each in enumerate(matrices, 1)
        ]
    shaped = [each for each in found if each[2].ndim == 2 and each[2].dtype.kind in "biuf"]
    widths = sorted({each[2].shape[1] for each in shaped})
    if not shaped or len(widths) > 1:
        raise DataError(
            f"{path} has {len(shaped)} matrices"
            + (f" of {', '.join(map(str, widths))} columns." if shaped else "."),
            "Series are matrices [steps, channels], alone or in cells, all with the same channels.",
            "Save only these in the file.",
        )
    parts = [part for _, part, _ in shaped]
    values = np.concatenate([each for _, _, each in shaped]).astype(np.float64)
    return Signal(
        tuple(name for name, _, _ in shaped),
        np.cumsum([0, *(len(each) for _, _, each in shaped)], dtype=np.int64),
        values,
        _numbered("channel", widths[0]),
        parts=None if None in parts else tuple(part for part in parts if part),
    )


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, EOFError) as problem:
        if isinstance(problem, FileNotFoundError):
            raise
        raise DataError(
            f"{path} cannot be read as an archive of arrays: {str(problem).splitlines()[0]}.",
            "A .npz file of numbers and text was expected; Python objects are not loaded.",
            "Write it again with numpy.savez.",
        ) from None


def _load_mat(path: Path) -> dict[str, NDArray[Any]]:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        raise UsageError(
            f"{path} is a .mat file, and scipy is not installed.",
            "scipy reads the files of MATLAB and Octave.",
            "Install it: pip install 'hiddenstate[tasks]'",
        ) from None
    with path.open("rb") as file:
        try:
            variables = loadmat(file)
        # A damaged file fails wherever scipy's parser trips over it: zlib, struct, NumPy.
        except Exception as problem:
            raise DataError(
                f"{path} cannot be read as a .mat file ({type(problem).__name__}: {problem}).",
                "A file of MATLAB up to version 7 (not 7.3) was expected.",
                "Save it again with save -v7, or as .npz or CSV.",
            ) from None
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("__") and isinstance(value, np.ndarray)
    }


def _microseconds(times: NDArray[Any], path: Path) -> Int64:
    if times.dtype.kind == "M" and not np.isnat(times).any():
        return times.astype("datetime64[us]").astype(np.int64)
    if times.dtype.kind in "iu":
        return times.astype(np.int64)
    raise DataError(
        f"{path} has times of the type {times.dtype}"
        + (", and some are missing." if times.dtype.kind == "M" else "."),
        "datetime64 was expected, or whole microseconds since 1970, for every step.",
        "Correct the array times, or leave it out.",
    )


def _part_of(name: str) -> str | None:
    lower = name.lower()
    return next((part for start, part in _PARTS.items() if lower.startswith(start)), None)


def _numbered(what: str, count: int) -> tuple[str, ...]:
    return tuple(f"{what} {place}" for place in range(1, count + 1))
