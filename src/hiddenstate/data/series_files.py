"""Labelled series from the files of archives: .ts (UEA and UCR) and .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.jsonlines import numbered_lines
from hiddenstate.data.labelled import Labelled, LabelledOptions
from hiddenstate.data.labelled_tables import finite, objects
from hiddenstate.data.report import Faults
from hiddenstate.errors import DataError
from hiddenstate.schema.log import Categorical, Floats, Int64

MISSING = "?"


def from_ts(
    path: Path,
    options: LabelledOptions,
    faults: Faults,
    *,
    answers: bool,
    numeric: bool = False,
) -> Labelled:
    """Read a .ts file: a line a sequence, `a1,a2,...:b1,b2,...:label` with a channel before each :.

    Lengths may differ between sequences, not between the channels of one; `?` and NaN are missing.
    With times in the file (`(t,v),(t,v)`) it is refused, and with targets that are numbers unless
    `numeric` ones are asked for. The format is that of Bagnall et al. 2018 (arXiv:1811.00075), as
    sktime and aeon write it.
    """
    frames: list[Floats] = []
    rows: list[int] = []
    names: list[str] = []
    head: dict[str, str] = {}
    channels = 0
    for row, line in _records(path, options, head):
        fields = line.split(":")
        said = [head.get(word, "").lower() for word in ("classlabel", "targetlabel")]
        if any(each.startswith("true") for each in said):
            names.append(fields.pop().strip())
        values = [_numbers(field, path, row, place) for place, field in enumerate(fields, 1)]
        channels = channels or len(values)
        lengths = sorted({len(each) for each in values})
        if len(values) != channels or len(lengths) != 1:
            raise DataError(
                f"{path}, row {row} has {len(values)} channels"
                + (f" of {' and '.join(map(str, lengths))} steps." if len(lengths) != 1 else "."),
                f"{channels} channels of equal length were expected, as in the first sequence.",
                "Mend the line; a value that is not known is written ?.",
            )
        frames.append(np.stack(values, axis=1))
        rows.append(row)
    if not frames:
        raise DataError(
            f"{path} has no sequence.",
            "A line for each was expected after @data.",
            "Check the file.",
        )
    labelled = bool(names) and (numeric or "targetlabel" not in head)
    _refuse_declared(path, head, channels, answers=answers, labelled=labelled)
    known: dict[str, int] = {}
    codes = [
        -1 if name in ("", MISSING) else known.setdefault(name, len(known))
        for name in names or [""] * len(frames)
    ]
    lengths_of = [len(frame) for frame in frames]
    labels = Categorical(np.array(codes, dtype=np.int32), tuple(known))
    row_of = np.array(rows, dtype=np.int64)
    faults.note("no_label", row_of[labels.codes < 0] if answers else [])
    return Labelled(
        objects([str(place) for place in range(1, len(frames) + 1)]),
        row_of,
        np.concatenate(([0], np.cumsum(lengths_of))).astype(np.int64),
        labels,
        every_step=False,
        values=finite(np.concatenate(frames), np.repeat(row_of, lengths_of), faults),
        channels=_numbered(channels),
    )


def from_npz(path: Path, faults: Faults, *, every_step: bool, answers: bool) -> Labelled:
    """Read a .npz archive of arrays.

    x        [C, T, F] or [C, T], padded at the end; with offsets, the frames [N, F] of all
    lengths  [C], real steps of padded sequences; all T where it is not there
    offsets  [C + 1], where each sequence of the frames [N, F] begins and the last one ends
    y        labels [C]; with a label for every step, [C, T], or [N] with offsets
    channels names of the F channels
    """
    arrays = _arrays(path)
    if "x" not in arrays or (answers and "y" not in arrays):
        lacking = " and ".join(name for name in "xy" if name not in arrays)
        raise DataError(
            f"{path} has no array {lacking}; it has {', '.join(arrays) or 'none'}.",
            "x holds the sequences [C, T, F] and y their labels; see `hiddenstate fit --help`.",
            "Save them under these names: numpy.savez(path, x=..., y=...).",
        )
    x = arrays["x"][..., None] if arrays["x"].ndim == 2 - ("offsets" in arrays) else arrays["x"]
    offsets, real = _offsets(path, x, arrays)
    values = x.astype(np.float64) if real is None else x[real].astype(np.float64)
    cases, steps = len(offsets) - 1, int(offsets[-1])
    labels = Categorical(np.full(steps if every_step else cases, -1, dtype=np.int32), ())
    if answers:
        y = arrays["y"][real] if every_step and real is not None else arrays["y"]
        wanted = steps if every_step else cases
        if y.shape != (wanted,):
            raise DataError(
                f"{path} has labels y of shape {list(arrays['y'].shape)} for {cases} sequences "
                f"with {steps} steps.",
                f"One label for each {'step' if every_step else 'sequence'} was expected.",
                "Give y the right shape, or choose between --task label and --task classify (of "
                "numbers, regress_steps and regress).",
            )
        known, codes = np.unique(y, return_inverse=True)
        labels = Categorical(codes.astype(np.int32), tuple(str(name) for name in known.tolist()))
    names = tuple(map(str, arrays["channels"].tolist())) if "channels" in arrays else ()
    if names and len(names) != x.shape[-1]:
        raise DataError(
            f"{path} names {len(names)} channels, and x has {x.shape[-1]}.",
            "Each channel has one name.",
            "Correct the array channels.",
        )
    rows = np.arange(1, cases + 1, dtype=np.int64)
    return Labelled(
        objects([str(row) for row in rows]),
        rows,
        offsets,
        labels,
        every_step,
        values=finite(values, np.repeat(rows, np.diff(offsets)), faults),
        channels=names or _numbered(x.shape[-1]),
    )


def reorder(found: Labelled, channels: tuple[str, ...], source: str) -> Labelled:
    """Return a series with these channels in this order; raises DataError where some are absent."""
    absent = [name for name in channels if name not in found.channels]
    if absent or found.values is None:
        raise DataError(
            f"{source} lacks {len(absent)} of {len(channels)} channels: {', '.join(absent)}.",
            f"The model was fitted with {', '.join(channels)}; the file has "
            f"{', '.join(found.channels) or 'no channels'}.",
            "Add the channels, or give a file of the same kind as in the fit.",
        )
    if channels == found.channels:
        return found
    places = [found.channels.index(name) for name in channels]
    return replace(found, values=found.values[:, places], channels=channels)


def _records(
    path: Path, options: LabelledOptions, head: dict[str, str]
) -> Iterator[tuple[int, str]]:
    """Yield the lines of the data; those before go to `head`, by the word behind their @."""
    is_data = False
    for row, raw in numbered_lines(path, options):
        line = raw.decode().strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@") and not is_data:
            word, _, rest = line[1:].partition(" ")
            is_data = word.lower() == "data"
            head[word.lower()] = rest.strip()
        elif is_data:
            yield row, line
        else:
            raise DataError(
                f"{path}, row {row} stands before @data: {line[:40]!r}.",
                "A .ts file begins with lines of @, then @data, then a line for each sequence.",
                "Check the file, or say with --format what it is.",
            )


def _numbers(field: str, path: Path, row: int, channel: int) -> Floats:
    try:
        words = field.split(",")
        return np.array([np.nan if word.strip() == MISSING else float(word) for word in words])
    except ValueError:
        raise DataError(
            f"{path}, row {row}, channel {channel} holds {field.strip()[:40]!r}.",
            "Numbers divided by commas were expected, ? where one is missing"
            + ("; times within the values are not read." if "(" in field else "."),
            "Mend the line.",
        ) from None


def _refuse_declared(
    path: Path, head: dict[str, str], channels: int, *, answers: bool, labelled: bool
) -> None:
    """Refuse what the head of a .ts file says and the data are not, or the reader is not for."""
    dimensions = head.get("dimensions", "")
    if dimensions.isdecimal() and int(dimensions) != channels:
        raise DataError(
            f"{path} says that it has {dimensions} dimensions, and its first sequence has "
            f"{channels} channels.",
            "Each dimension is a channel.",
            "Mend the file.",
        )
    if answers and not labelled:
        target = " but numbers as targets" if "targetlabel" in head else ""
        raise DataError(
            f"{path} has no class labels{target}.",
            "Its head was expected to say @classLabel true, and each line to end with its label.",
            "Give a file of labelled series, or use --task regress for numbers.",
        )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, EOFError) as problem:
        raise DataError(
            f"{path} cannot be read as an archive of arrays ({type(problem).__name__}).",
            "A whole .npz file of numbers and text was expected; Python objects are not loaded.",
            "Write it again with numpy.savez.",
        ) from None


def _offsets(
    path: Path, x: NDArray[Any], arrays: dict[str, NDArray[Any]]
) -> tuple[Int64, NDArray[np.bool_] | None]:
    """Return offsets [C + 1], and which of the padded steps [C, T] are real."""
    if x.dtype.kind not in "biuf" or x.ndim != (2 if "offsets" in arrays else 3):
        raise DataError(
            f"{path} has x of shape {list(arrays['x'].shape)} and type {x.dtype}.",
            "Numbers of shape [C, T, F] or [C, T] were expected, or with offsets [N, F].",
            "Give x that shape.",
        )
    if "offsets" in arrays:
        offsets = arrays["offsets"].astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != len(x) or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{path} has offsets from {offsets[0]} to {offsets[-1]} for {len(x)} frames.",
                f"They must rise from 0 to {len(x)}.",
                "Correct the array offsets.",
            )
        return offsets, None
    lengths = arrays.get("lengths", np.full(len(x), x.shape[1])).astype(np.int64)
    if lengths.shape != (len(x),) or lengths.min(initial=0) < 0 or lengths.max() > x.shape[1]:
        raise DataError(
            f"{path} has lengths of shape {list(lengths.shape)}, at most {lengths.max()}, for x "
            f"of shape {list(x.shape)}.",
            f"One length for each of {len(x)} sequences was expected, at most {x.shape[1]}.",
            "Correct the array lengths.",
        )
    return np.concatenate(([0], np.cumsum(lengths))), np.arange(x.shape[1]) < lengths[:, None]


def _numbered(channels: int) -> tuple[str, ...]:
    return tuple(f"channel {place}" for place in range(1, channels + 1))
