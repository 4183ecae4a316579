"""The schema: which columns are inputs, and how an event becomes numbers, in batches or live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, SpecError, nearest
from hiddenstate.schema import clock
from hiddenstate.schema.clock import Memory, to_us
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.log import Categorical, EventLog, Floats, Int64
from hiddenstate.schema.raw import BLANK, label, number
from hiddenstate.schema.scaler import Scaler, signed_log1p
from hiddenstate.schema.vocabulary import UNKNOWN, Vocabulary

FORMAT = "hiddenstate-schema-1"
# A scaled input beyond this is cut, so that one wild value cannot drown the others.
LIMIT = 10.0


class Inputs(NamedTuple):
    """Encoded events: codes int64 [N, K], numbers float32 [N, F]; [K] and [F] for one event."""

    codes: Int64
    numbers: NDArray[np.float32]


@dataclass(frozen=True)
class Durations:
    """Scalers of the seconds since an entity's previous and since its first event."""

    since_previous: Scaler
    since_start: Scaler


@dataclass(frozen=True)
class Schema:
    """How events of one log become inputs; the activity is always the first code.

    vocabularies: categorical inputs by column name, the activity first  [K]
    scalers:      numeric inputs by column name; each gives its value and a flag for missing
    durations:    None where time is no input
    case, time:   what the columns were called, so that later files are read alike
    """

    vocabularies: Mapping[str, Vocabulary]
    scalers: Mapping[str, Scaler] = field(default_factory=dict)
    durations: Durations | None = None
    case: str = "case"
    time: str = "timestamp"
    _tables: dict[str, tuple[tuple[str, ...], Int64]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _scaling: tuple[Floats, Floats, Int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay the scalers out as arrays; raises SpecError without an activity."""
        if not self.vocabularies:
            raise SpecError(
                "The schema has no categorical input.",
                "The first one is the activity, which every log has.",
                "Fit a schema with Schema.fit(log).",
            )
        rows = [scaler for value in self.scalers.values() for scaler in (value, Scaler())]
        if self.durations is not None:
            rows += [self.durations.since_previous, self.durations.since_start]
            rows += [Scaler()] * (len(clock.NAMES) - 2)
        mean = np.array([row.mean for row in rows]).reshape(-1, 1)
        scale = np.array([row.scale for row in rows]).reshape(-1, 1)
        logged = np.array([i for i, row in enumerate(rows) if row.log1p], dtype=np.int64)
        object.__setattr__(self, "_scaling", (mean, scale, logged))

    @property
    def activity(self) -> str:
        """Name of the activity column in the training log."""
        return next(iter(self.vocabularies))

    @property
    def activities(self) -> Vocabulary:
        """The known activities."""
        return self.vocabularies[self.activity]

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Number of ids of each categorical input [K], the unknown class included."""
        return tuple(len(vocabulary) for vocabulary in self.vocabularies.values())

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the numeric inputs [F], in the order of `Inputs.numbers`."""
        values = [name for column in self.scalers for name in (column, f"{column} is missing")]
        return (*values, *(clock.NAMES if self.durations is not None else ()))

    @classmethod
    def fit(
        cls,
        log: EventLog,
        *,
        categorical: Iterable[str] | None = None,
        numeric: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        time: bool | None = None,
        max_vocabulary: int = 10_000,
        min_count: int = 2,
    ) -> Schema:
        """Measure vocabularies and scalers on the training cases and on nothing else.

        categorical, numeric: names of inputs; None means every column, () means none
        exclude:              names that are never inputs
        time:                 None means if the log has times
        max_vocabulary:       most labels kept for one column, the activity included
        min_count:            rarer labels of an attribute share the unknown class, so that the
                              class is trained; activities seen once are kept

        Raises DataError for a name that the log does not have, or for times it lacks.
        """
        attributes = [name for name in log.categorical if name != log.activity]
        categorical = _chosen(categorical, attributes, exclude)
        numeric = _chosen(numeric, list(log.numeric), exclude)
        if time and log.time_us is None:
            raise _without_times(log.events)
        vocabularies = {log.activity: Vocabulary.fit(log.activities, max_size=max_vocabulary)}
        for name in categorical:
            vocabularies[name] = Vocabulary.fit(
                log.categorical[name], max_size=max_vocabulary, min_count=min_count
            )
        durations = None
        if log.time_us is not None and time is not False:
            since_previous, since_start, _ = clock.elapsed(log, log.time_us)
            durations = Durations(
                Scaler.fit(since_previous, log1p=True), Scaler.fit(since_start, log1p=True)
            )
        scalers = {name: Scaler.fit(log.numeric[name]) for name in numeric}
        return cls(vocabularies, scalers, durations, log.case, log.time)

    def encode(self, log: EventLog) -> Inputs:
        """Encode every event of a log: codes int64 [N, K], numbers float32 [N, F].

        Raises DataError naming the columns that the log lacks.
        """
        self._check_columns(log)
        codes = np.empty((log.events, len(self.vocabularies)), dtype=np.int64)
        for place, (name, column) in enumerate(self._columns(log)):
            np.take(
                self._table(name, column.labels), column.codes, out=codes[:, place], mode="wrap"
            )
        raw = np.empty((len(self.number_names), log.events))
        for place, name in enumerate(self.scalers):
            raw[2 * place] = log.numeric[name]
        if self.durations is not None:
            if log.time_us is None:
                raise _without_times(log.events)
            raw[-7:-4] = clock.elapsed(log, log.time_us)
            raw[-4:] = clock.calendar(log.time_us)
        return Inputs(codes, self._scaled(raw))

    def encode_event(
        self, event: Mapping[str, object], memory: Memory | None = None
    ) -> tuple[Int64, NDArray[np.float32], Memory]:
        """Encode one live event: codes [K], numbers [F], and the memory for the entity's next one.

        Keys are the column names of the training log; an absent or empty attribute is missing.
        The time (key `schema.time`) is a datetime or UTC microseconds, needed only where time is
        an input. `memory` is None at an entity's first event. Equal to `encode`, bit for bit.
        Raises DataError where the activity is missing or a number or time cannot be read.
        """
        words = {name: label(event.get(name)) for name in self.vocabularies}
        words[self.activity] = label(event.get(self.activity), BLANK)
        codes = np.array([self.vocabularies[name].encode(word) for name, word in words.items()])
        if words[self.activity] is None:
            raise DataError(
                f"The event has no {self.activity!r}; it has {sorted(event)}.",
                "Every event says what happened; the model was trained with that column.",
                f"Give {self.activity!r}.",
            )
        raw = np.empty((len(self.number_names), 1))
        for place, name in enumerate(self.scalers):
            raw[2 * place] = number(name, event.get(name))
        if self.durations is None:
            return codes, self._scaled(raw)[0], memory or Memory(0, 0)
        now_us = to_us(event.get(self.time))
        before = memory or Memory(now_us, now_us)
        raw[-7] = max(now_us - before.last_us, 0) / clock.SECOND_US
        raw[-6] = max(now_us - before.first_us, 0) / clock.SECOND_US
        raw[-5] = memory is None
        raw[-4:] = clock.calendar(np.array([now_us], dtype=np.int64))
        return codes, self._scaled(raw)[0], Memory(before.first_us, max(now_us, before.last_us))

    def unknowns(self, log: EventLog) -> dict[str, dict[str, int]]:
        """Count the events of each label that is not in its column's vocabulary, most first."""
        self._check_columns(log)
        found = {}
        for name, column in self._columns(log):
            counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.labels))
            strange = self._table(name, column.labels)[:-1] == UNKNOWN
            codes = np.flatnonzero(strange & (counts > 0))
            codes = codes[np.argsort(-counts[codes], kind="stable")]
            if len(codes):
                found[name] = {column.labels[code]: int(counts[code]) for code in codes}
        return found

    def to_json(self) -> dict[str, object]:
        """Return the schema as a JSON object."""
        durations = self.durations
        return {
            "format": FORMAT,
            "case": self.case,
            "time": self.time,
            "categorical": [{"name": k, **v.to_json()} for k, v in self.vocabularies.items()],
            "numeric": [{"name": k, **v.to_json()} for k, v in self.scalers.items()],
            "durations": None
            if durations is None
            else {
                "since_previous": durations.since_previous.to_json(),
                "since_start": durations.since_start.to_json(),
            },
        }

    @classmethod
    def from_json(cls, raw: object, where: str = "schema") -> Schema:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        fields = Fields(raw, where)
        if fields.text("format") != FORMAT:
            raise SpecError(
                f"The field {where}.format is {fields.text('format')!r}.",
                f"This version of hiddenstate reads {FORMAT!r}.",
                "Use the version that wrote it, or fit again.",
            )
        words, numbers = fields.each("categorical"), fields.each("numeric")
        vocabularies = {f.text("name"): Vocabulary.from_json(f.raw, f.where) for f in words}
        scalers = {f.text("name"): Scaler.from_json(f.raw, f.where) for f in numbers}
        if len(vocabularies) + len(scalers) != len(words) + len(numbers):
            raise SpecError(
                f"The field {where} names a column twice.",
                "Every input has its own name.",
                "The file is damaged; fit again.",
            )
        times = fields.optional("durations")
        durations = None
        if times is not None:
            previous, start = times.inside("since_previous"), times.inside("since_start")
            durations = Durations(
                Scaler.from_json(previous.raw, previous.where),
                Scaler.from_json(start.raw, start.where),
            )
        return cls(vocabularies, scalers, durations, fields.text("case"), fields.text("time"))

    def _columns(self, log: EventLog) -> list[tuple[str, Categorical]]:
        # The activity is found by its part in the log, not by name: files may call it otherwise.
        rest = [(name, log.categorical[name]) for name in list(self.vocabularies)[1:]]
        return [(self.activity, log.activities), *rest]

    def _table(self, name: str, labels: tuple[str, ...]) -> Int64:
        # Batches of one log share its labels tuple, so the look-up is made once per log.
        known = self._tables.get(name)
        if known is None or known[0] is not labels:
            known = (labels, self.vocabularies[name].table(labels))
            self._tables[name] = known
        return known[1]

    def _scaled(self, raw: Floats) -> NDArray[np.float32]:
        """Finish raw numbers [F, N] (missing flags still open) as float32 [N, F]."""
        mean, scale, logged = self._scaling
        values = slice(0, 2 * len(self.scalers), 2)
        missing = ~np.isfinite(raw[values])
        raw[1 : 2 * len(self.scalers) : 2] = missing
        raw[logged] = signed_log1p(raw[logged])
        scaled = np.clip((raw - mean) / scale, -LIMIT, LIMIT)
        scaled[values][missing] = 0.0
        return np.ascontiguousarray(scaled.T, dtype=np.float32)

    def _check_columns(self, log: EventLog) -> None:
        words = set(list(self.vocabularies)[1:]) - set(log.categorical)
        absent = sorted(words | (set(self.scalers) - set(log.numeric)))
        if absent:
            have = [name for name in (*log.categorical, *log.numeric) if name != log.activity]
            raise DataError(
                f"The log lacks {len(absent)} of the model's input columns: {', '.join(absent)}.",
                f"The model was trained with {', '.join((*self.vocabularies, *self.scalers))}; "
                f"the log has {', '.join(have) or 'only activities'}.",
                "Add the columns (of the same type), or fit again without them.",
            )


def _chosen(names: Iterable[str] | None, known: Sequence[str], exclude: Iterable[str]) -> list[str]:
    banned = set(exclude)
    chosen = list(known if names is None else names)
    for name in chosen:
        if name not in known:
            raise DataError(
                f"The log has no attribute {name!r} of that type.{nearest(name, known)}",
                f"It has {', '.join(known) or 'none'}.",
                "Name one of these.",
            )
    return [name for name in chosen if name not in banned]


def _without_times(events: int) -> DataError:
    return DataError(
        f"The log has {events} events and no times.",
        "Times are inputs of this model.",
        "Give a log with timestamps, or fit with times left out.",
    )
