"""Labelled sequences from tables: a text a row, or a step a row in long form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hiddenstate.data.columns import UNPARSED_SHARE, encode_labels
from hiddenstate.data.labelled import Labelled, LabelledOptions
from hiddenstate.data.names import KNOWN, find
from hiddenstate.data.report import Faults
from hiddenstate.data.sources import Opener
from hiddenstate.data.split import PARTS
from hiddenstate.data.texts import texts
from hiddenstate.data.times import UNREADABLE, Times
from hiddenstate.errors import DataError, nearest
from hiddenstate.schema.log import Categorical, Floats, Int64
from hiddenstate.schema.raw import BLANK

ROLES = ("label", "text", "token", "sequence", "position", "part")
# Within the rows of a frame; no column of a file has this name.
ROW = "\0row"


def from_tables(
    openers: Sequence[Opener],
    options: LabelledOptions,
    faults: Faults,
    *,
    every_step: bool,
    answers: bool,
) -> Labelled:
    """Read all files as one table and cut it into sequences.

    A text column makes texts, a token column tokens, and else the numeric columns are channels.
    answers: whether a label column must be there. Raises DataError.
    """
    table = _table(openers, faults)
    columns = [name for name in table.columns if name != ROW]
    found = _roles(columns, options, answers=answers)
    if "text" in found and "token" not in found:
        if every_step:
            raise DataError(
                f"{faults.sources[0]} has whole texts (column {found['text']!r}), and every step "
                "shall be labelled.",
                "Labels for every step need a row for each token, or JSON lines with a list of "
                "tokens and a list of labels.",
                "Give such a file, or --task classify (of numbers, regress).",
            )
        return _whole_texts(table, found, faults, answers=answers)
    return _long(table, columns, found, options, faults, every_step=every_step, answers=answers)


def _table(openers: Sequence[Opener], faults: Faults) -> pl.DataFrame:
    frames = []
    for number, opener in enumerate(openers):
        faults.file = number
        for block in opener(faults):
            rows = pl.Series(ROW, faults.number(block.rows))
            frames.append(pl.DataFrame([*block.columns.values(), rows]))
    if not frames:
        raise DataError(
            f"{', '.join(faults.sources)} has no rows.",
            "A header and at least one row were expected.",
            " ".join(repair.sentence for repair in faults.repairs()) or "Check the file.",
        )
    return pl.concat(frames, how="diagonal_relaxed")


def _roles(columns: list[str], options: LabelledOptions, *, answers: bool) -> dict[str, str]:
    """Return the columns by role; a given one that is not there is refused, if it is needed."""
    given = {role: getattr(options, role) for role in ROLES}
    found: dict[str, str] = {}
    # Roles that were given choose first; a split is never guessed.
    for role in sorted(ROLES, key=lambda role: given[role] is None):
        if given[role] is None and role == "part":
            continue
        name = find(role, columns, given[role], {*found.values(), *options.exclude})
        if name is not None:
            found[role] = name
        elif given[role] is not None and (answers or role != "label"):
            raise DataError(
                f"There is no column {given[role]!r} for the {role}."
                f"{nearest(given[role], columns)}",
                f"The columns are: {', '.join(columns)}.",
                f"Correct labels.{role}." if role != "part" else "Correct --split-column.",
            )
    return found


def _whole_texts(
    table: pl.DataFrame, found: dict[str, str], faults: Faults, *, answers: bool
) -> Labelled:
    words = texts(table[found["text"]], BLANK)
    gone = words.is_null()
    rows = table[ROW].to_numpy()
    faults.note("no_text", rows[gone.to_numpy()])
    table, words = table.filter(~gone), words.filter(~gone)
    rows = table[ROW].to_numpy()
    if not len(words):
        raise _nothing_left(faults, "a text")
    ids = texts(table[found["sequence"]], BLANK) if "sequence" in found else None
    names = [] if ids is None else ids.to_list()
    if ids is None or ids.null_count() or ids.n_unique() < len(ids):
        names = [faults.place(row).removeprefix("row ") for row in rows]
    labels = _labels(table, found, answers=answers)
    faults.note("no_label", rows[labels.codes < 0] if answers else [])
    return Labelled(
        ids=objects(names),
        rows=rows,
        offsets=np.concatenate(([0], words.str.len_chars().cum_sum().to_numpy())).astype(np.int64),
        labels=labels,
        every_step=False,
        texts=objects(words.to_list()),
        parts=_parts(table, found, np.arange(len(words))),
        columns=found,
    )


def _long(
    table: pl.DataFrame,
    columns: list[str],
    found: dict[str, str],
    options: LabelledOptions,
    faults: Faults,
    *,
    every_step: bool,
    answers: bool,
) -> Labelled:
    if "sequence" not in found:
        raise DataError(
            f"No column names the sequences. The columns are: {', '.join(columns)}.",
            "A text column was expected, or a row for each step with a column that says to which "
            f"sequence it belongs. Known names are {', '.join(KNOWN['text'][:4])}, ... and "
            f"{', '.join(KNOWN['sequence'][:4])}, ...",
            "Say which column it is with --set labels.text=NAME or --set labels.sequence=NAME; for "
            "lines of a label and a text without a header use --format lines.",
        )
    table = _in_order(table, found, options, faults)
    first = np.flatnonzero(np.diff(table["\0sequence"].to_numpy(), prepend=-1))
    offsets = np.concatenate((first, [table.height])).astype(np.int64)
    labels = _labels(table, found, answers=answers)
    rows = table[ROW].to_numpy()
    if not every_step:
        labels = _one_each(labels, offsets, found, table)
    where = rows if every_step else rows[first]
    faults.note("no_label", where[labels.codes < 0] if answers else [])
    tokens, values = None, None
    channels: tuple[str, ...] = ()
    if "token" in found:
        tokens = objects(texts(table[found["token"]], BLANK).to_list())
    else:
        channels, values = _channels(table, columns, found, options, faults)
    return Labelled(
        ids=objects(texts(table[found["sequence"]], BLANK).gather(first).to_list()),
        rows=rows[first],
        offsets=offsets,
        labels=labels,
        every_step=every_step,
        tokens=tokens,
        values=values,
        channels=channels,
        parts=_parts(table, found, first),
        columns=found,
    )


def _in_order(
    table: pl.DataFrame, found: dict[str, str], options: LabelledOptions, faults: Faults
) -> pl.DataFrame:
    """Sort rows by sequence (in order of their first row) and position; drop rows without."""
    rows = table[ROW].to_numpy()
    of: dict[str, int] = {}
    sequence = encode_labels(texts(table[found["sequence"]], BLANK), of)
    good = sequence >= 0
    faults.note("no_sequence", rows[~good])
    if "token" in found:
        empty = texts(table[found["token"]], BLANK).is_null().to_numpy() & good
        faults.note("no_token", rows[empty])
        good &= ~empty
    keys = [pl.Series("\0sequence", sequence)]
    if "position" in found:
        place, readable = _positions(table[found["position"]], options)
        faults.note("no_position", rows[good & ~readable])
        good &= readable
        keys.append(pl.Series("\0position", place))
    table = table.with_columns(keys).filter(pl.Series(good))
    if not table.height:
        raise _nothing_left(faults, "a sequence" + ", a token" * ("token" in found))
    return table.sort([key.name for key in keys], maintain_order=True)


def _positions(column: pl.Series, options: LabelledOptions) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return numbers, or microseconds, to sort by, and where they could be read."""
    if not column.dtype.is_temporal():
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.count() >= (1 - UNPARSED_SHARE) * column.count():
            return numbers.fill_null(np.nan).to_numpy(), numbers.is_not_null().to_numpy()
    times = Times(column.name, options.time_format)
    if times.is_undecided(column):
        times.decide([column])
    micros = times.parse(column)[0]
    return micros, micros != UNREADABLE


def _labels(table: pl.DataFrame, found: dict[str, str], *, answers: bool) -> Categorical:
    """Return the labels of every row, all missing where the column is not there."""
    if "label" in found:
        known: dict[str, int] = {}
        codes = encode_labels(texts(table[found["label"]], BLANK), known)
        return Categorical(codes, tuple(known))
    if answers:
        columns = [name for name in table.columns if not name.startswith("\0")]
        raise DataError(
            f"No label column was found. The columns are: {', '.join(columns)}.",
            f"Known names are {', '.join(KNOWN['label'])}. Case and punctuation do not matter.",
            "Say which it is with --set labels.label=NAME.",
        )
    return Categorical(np.full(table.height, -1, dtype=np.int32), ())


def _one_each(
    labels: Categorical, offsets: Int64, found: dict[str, str], table: pl.DataFrame
) -> Categorical:
    """Return the one label of each sequence; refuse several."""
    of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    named = labels.codes >= 0
    lowest = np.full(len(offsets) - 1, np.iinfo(np.int32).max, dtype=np.int32)
    highest = np.full(len(offsets) - 1, -1, dtype=np.int32)
    np.minimum.at(lowest, of[named], labels.codes[named])
    np.maximum.at(highest, of[named], labels.codes[named])
    several = np.flatnonzero((highest >= 0) & (lowest != highest))
    if len(several):
        name = table[found["sequence"]][int(offsets[several[0]])]
        pair = (labels.labels[lowest[several[0]]], labels.labels[highest[several[0]]])
        raise DataError(
            f"{len(several)} sequences have more than one label: {name!r} has {pair[0]!r} and "
            f"{pair[1]!r} in the column {found['label']!r}.",
            "A whole sequence has one label.",
            "Use --task label (of numbers, regress_steps) for a label at every step, or name "
            "another column with --set labels.label=NAME.",
        )
    return Categorical(highest, labels.labels)


def _channels(
    table: pl.DataFrame,
    columns: list[str],
    found: dict[str, str],
    options: LabelledOptions,
    faults: Faults,
) -> tuple[tuple[str, ...], Floats]:
    """Return the names and values [N, F] of the channels; what is no number is missing."""
    taken = {*found.values(), *options.exclude}
    asked = options.channels
    absent = [name for name in asked or () if name not in columns]
    if absent:
        raise DataError(
            f"{faults.sources[0]} lacks {len(absent)} of {len(asked or ())} channels: "
            f"{', '.join(absent)}.{nearest(absent[0], columns)}",
            "They were asked for, or the model was fitted with them; the file has "
            f"{', '.join(name for name in columns if name not in taken) or 'no other column'}.",
            "Add the columns, or correct their names.",
        )
    names, values = [], []
    for name in asked if asked is not None else [c for c in columns if c not in taken]:
        is_number = table[name].dtype.is_numeric()
        words = table[name] if is_number else texts(table[name])
        numbers = words.cast(pl.Float64, strict=False)
        failed = (numbers.is_null() & words.is_not_null()).to_numpy()
        if asked is None and failed.sum() > words.count() / 2:
            continue
        faults.note("bad_number", table[ROW].to_numpy()[failed], [name])
        names.append(name)
        values.append(numbers.fill_null(np.nan).to_numpy())
    if not names:
        raise DataError(
            f"No column is a channel. The columns are: {', '.join(columns)}.",
            "A series needs at least one column of numbers beside the sequence and the label.",
            "Add one, or say with --set labels.text=NAME or --set labels.token=NAME which column "
            "holds words.",
        )
    return tuple(names), finite(np.stack(values, axis=1), table[ROW].to_numpy(), faults)


def finite(values: Floats, rows: Int64, faults: Faults) -> Floats:
    """Return values [N, F] with infinities as NaN; count these and the gaps at their rows [N]."""
    infinite = np.isinf(values)
    faults.note("gaps", np.repeat(rows, np.isnan(values).sum(axis=1)))
    faults.note("infinite", np.repeat(rows, infinite.sum(axis=1)))
    return np.where(infinite, np.nan, values)


def objects(values: Sequence[object]) -> Any:
    """Return values as an object array [n], whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _parts(
    table: pl.DataFrame, found: dict[str, str], rows: NDArray[Any]
) -> NDArray[np.int8] | None:
    """Return the part of each sequence, as its first row says; refuse other words."""
    if "part" not in found:
        return None
    words = texts(table[found["part"]], BLANK).gather(rows).to_list()
    codes = [PARTS.get((word or "").lower(), -1) for word in words]
    if -1 in codes:
        raise DataError(
            f"The column {found['part']!r} has the value {words[codes.index(-1)]!r}.",
            "Each sequence is of the train, validation or test part.",
            "Correct it, or leave --split-column out.",
        )
    return np.array(codes, dtype=np.int8)


def _nothing_left(faults: Faults, needed: str) -> DataError:
    return DataError(
        f"{', '.join(faults.sources)}: no row is left.",
        f"At least one row with {needed} was expected.",
        " ".join(repair.sentence for repair in faults.repairs()) or "Check the file.",
    )
