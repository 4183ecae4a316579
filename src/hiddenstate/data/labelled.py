"""Sequences with labels: whole texts, tokens, or frames of several channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.options import Options
from hiddenstate.data.report import Faults
from hiddenstate.errors import DataError
from hiddenstate.schema.log import Categorical, Floats, Int64, Names

Of: TypeAlias = Literal["texts", "tokens", "series"]


@dataclass(frozen=True)
class LabelledOptions(Options):
    """Settings of `read_labelled`, beside those of `Options`.

    text, label, token, sequence, position, part: column names; None finds them by the table in
                `names`, the part (train, validation or test) excepted. In a file of token and label
                on a line, token and label are numbers of fields, from 1 or, from the end, -1
    channels:   columns of a series that are its channels, in this order; None takes the numeric
    separator:  what parts label and text on a line; label_last: the label stands behind it
    label_ends: what follows in a label is left out: ":" makes NUM of NUM:date
    drop_duplicates: keep one of several equal sequences, with the label that they have most often

    In a folder with a file for each label, `exclude` names files that are left out.
    """

    text: str | None = None
    label: str | None = None
    token: str | None = None
    sequence: str | None = None
    position: str | None = None
    part: str | None = None
    channels: Sequence[str] | None = None
    separator: str = "\t"
    label_last: bool = False
    label_ends: str = ""
    # Texts alone, without labels, are what a fitted model is asked about.
    lone_column: bool = True


@dataclass(frozen=True, eq=False)
class Labelled:
    """C sequences with N steps in all, and their labels.

    ids      names of the sequences [C]
    rows     where each began in its file, as `Faults` numbers rows [C]
    offsets  steps of sequence c are offsets[c] to offsets[c + 1] [C + 1]; of texts, characters
    labels   codes of each sequence [C] or, with `every_step`, of each step [N]; -1 is none
    texts    whole texts [C]
    tokens   texts that came cut into tokens [N]
    values   frames [N, F]; NaN is missing
    channels their names [F]
    parts    0 train, 1 validation, 2 test where a column says so [C]
    columns  what the columns were called, by role

    One of texts, tokens and values is there.
    """

    ids: Names
    rows: Int64
    offsets: Int64
    labels: Categorical
    every_step: bool
    texts: Names | None = None
    tokens: Names | None = None
    values: Floats | None = None
    channels: tuple[str, ...] = ()
    parts: NDArray[np.int8] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit together; raises DataError."""
        inputs = [part for part in (self.tokens, self.values) if part is not None]
        sizes = [len(part) for part in inputs] or [self.steps]
        wanted = self.steps if self.every_step else self.cases
        if (
            len(self.offsets) != self.cases + 1
            or sizes != [self.steps]
            or len(self.labels.codes) != wanted
            or (self.texts is not None and len(self.texts) != self.cases)
        ):
            raise DataError(
                f"{self.cases} sequences with {self.steps} steps have {sizes[0]} inputs and "
                f"{len(self.labels.codes)} labels.",
                f"There must be {self.steps} inputs and {wanted} labels.",
                "Give one label for each " + ("step." if self.every_step else "sequence."),
            )

    @property
    def of(self) -> Of:
        """What the sequences are made of."""
        if self.texts is not None:
            return "texts"
        return "series" if self.tokens is None else "tokens"

    @property
    def cases(self) -> int:
        """Number of sequences C."""
        return len(self.ids)

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Int64:
        """Steps of each sequence [C]."""
        return np.diff(self.offsets)

    def select(self, cases: NDArray[Any]) -> Labelled:
        """Return the given sequences in the given order."""
        lengths = self.lengths[cases]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        steps = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][cases] - offsets[:-1], lengths)
        return replace(
            self,
            ids=self.ids[cases],
            rows=self.rows[cases],
            offsets=offsets,
            labels=self.labels.take(steps if self.every_step else cases),
            texts=None if self.texts is None else self.texts[cases],
            tokens=None if self.tokens is None else self.tokens[steps],
            values=None if self.values is None else self.values[steps],
            parts=None if self.parts is None else self.parts[cases],
        )

    def pieces(self) -> list[Any]:
        """Return each sequence's own input as one hashable value [C]."""
        if self.texts is not None:
            return list(self.texts)
        cuts = list(zip(self.offsets[:-1], self.offsets[1:], strict=True))
        if self.tokens is not None:
            return [tuple(self.tokens[start:end]) for start, end in cuts]
        if self.values is None:
            raise AssertionError("one of texts, tokens and values is there")
        # Adding 0 makes one zero of -0.0 and 0.0.
        frames = np.ascontiguousarray(self.values) + 0.0
        return [frames[start:end].tobytes() for start, end in cuts]

    def first_equal(self) -> Int64:
        """Return for each sequence the place of the first one with the same input [C]."""
        seen: dict[Any, int] = {}
        return np.array(
            [seen.setdefault(piece, place) for place, piece in enumerate(self.pieces())],
            dtype=np.int64,
        )


def settle_duplicates(found: Labelled, options: LabelledOptions, faults: Faults) -> Labelled:
    """Count sequences with equal inputs; with `drop_duplicates`, keep one of each.

    The one that stays is the first of those with the label that is most frequent among them.
    """
    first = found.first_equal()
    places = np.arange(found.cases)
    repeats = first != places
    if not repeats.any():
        return found
    codes = found.labels.codes
    if found.every_step:
        seen: dict[bytes, int] = {}
        answers = (codes[a:b].tobytes() for a, b in zip(found.offsets, found.offsets[1:]))
        codes = np.array([seen.setdefault(each, len(seen)) for each in answers], dtype=np.int32)
    other = repeats & (codes != codes[first])
    faults.note("contradicting", found.rows[other])
    if not options.drop_duplicates:
        faults.note("repeated_kept", found.rows[repeats])
        return found
    faults.note("repeated", found.rows[repeats])
    kept = first == places
    for group in np.unique(first[other]):
        members = np.flatnonzero(first == group)
        values, starts, counts = np.unique(codes[members], return_index=True, return_counts=True)
        kept[group] = False
        kept[members[starts[np.argmax(counts * (values >= 0))]]] = True
    return found.select(np.flatnonzero(kept))
