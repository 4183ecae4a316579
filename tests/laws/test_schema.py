"""Encoding one event at a time equals encoding a batch; a schema survives its JSON."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiddenstate.data import read
from hiddenstate.data.blocks import text
from hiddenstate.errors import SpecError
from hiddenstate.schema import Categorical, EventLog, Schema
from hiddenstate.schema.raw import label, number

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NUMBERS = st.one_of(st.just(float("nan")), st.floats(-1e12, 1e12), st.sampled_from([0.0, -0.0]))
MOMENTS = st.integers(-(10**15), 4 * 10**15)


@st.composite
def logs(draw: st.DrawFn) -> EventLog:
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=6))
    events = sum(lengths)

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=events, max_size=events))

    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    times = np.array(column(MOMENTS), dtype=np.int64)
    for begin, end in itertools.pairwise(offsets):
        times[begin:end].sort()
    ids = np.array([f"case {i}" for i in range(len(lengths))], dtype=object)
    codes = np.array(column(st.integers(0, 2)), dtype=np.int32)
    tiers = np.array(column(st.integers(-1, 3)), dtype=np.int32)
    return EventLog(
        ids,
        offsets,
        "what",
        {
            "what": Categorical(codes, ("open", "call", "close")),
            "tier": Categorical(tiers, ("a", "b", "c", "d")),
        },
        {"cost": np.array(column(NUMBERS)), "size": np.array(column(NUMBERS))},
        times if draw(st.booleans()) else None,
        time="at",
    )


def raw_event(log: EventLog, row: int, as_datetime: bool) -> dict[str, object]:
    event: dict[str, object] = {k: v.names()[row] for k, v in log.categorical.items()}
    event |= {k: float(v[row]) for k, v in log.numeric.items() if not np.isnan(v[row])}
    if log.time_us is not None:
        time_us = int(log.time_us[row])
        event["at"] = EPOCH + timedelta(microseconds=time_us) if as_datetime else time_us
    return event


@settings(max_examples=150, deadline=None)
@given(logs(), logs(), st.booleans())
def test_one_event_at_a_time_equals_the_batch_bit_for_bit(
    training: EventLog, log: EventLog, as_datetime: bool
) -> None:
    schema = Schema.fit(training, time=training.time_us is not None and log.time_us is not None)
    codes, numbers = schema.encode(log)
    assert numbers.shape == (log.events, len(schema.number_names))
    assert np.isfinite(numbers).all()
    for begin, end in zip(log.offsets[:-1], log.offsets[1:]):
        memory = None
        for row in range(begin, end):
            event = raw_event(log, row, as_datetime)
            live_codes, live_numbers, memory = schema.encode_event(event, memory)
            assert live_codes.tolist() == codes[row].tolist()
            assert live_numbers.tobytes() == numbers[row].tobytes()


VALUES = {
    "floats": st.one_of(st.none(), st.floats(), st.integers(-3, 3).map(float)),
    "integers": st.one_of(st.none(), st.integers(-(2**62), 2**62)),
    "booleans": st.one_of(st.none(), st.booleans()),
    "words": st.one_of(
        st.none(),
        st.sampled_from(["", " NA ", "NaN", "null", "None", "1", "1.0", "2.", "-0.0", "x.0"]),
        st.sampled_from(["true", "nonesuch", "1e16", " a b ", "1.50", "inf"]),
        st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=5),
    ),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_raw_value_is_read_from_a_frame_as_it_is_understood_live(
    kind: str, source: st.DataObject
) -> None:
    values = source.draw(st.lists(VALUES[kind], min_size=1, max_size=20))
    frame = {"case": ["c"] * len(values), "activity": ["a"] * len(values), "seen": values}
    types = {"floats": pl.Float64, "integers": pl.Int64, "booleans": pl.Boolean}
    typed = pl.DataFrame(frame, schema_overrides={"seen": types.get(kind, pl.String)})
    log, _ = read(typed, with_times=False, categorical=["seen"])
    assert log.categorical["seen"].names().tolist() == [label(value) for value in values]
    if kind in ("floats", "integers"):
        numbers = read(typed, with_times=False, numeric=["seen"])[0].numeric["seen"]
        live = np.array([number("seen", value) for value in values])
        live[np.isinf(live)] = np.nan
        assert np.array_equal(numbers, live, equal_nan=True)
    written = typed.with_columns(pl.Series("seen", [*map(text, values)], pl.String))
    again, _ = read(written, with_times=False, categorical=["seen"])
    assert again.categorical["seen"].names().tolist() == [label(value) for value in values]


@settings(max_examples=50, deadline=None)
@given(logs(), st.permutations(range(6)))
def test_a_selection_is_encoded_as_it_stands_in_the_whole(log: EventLog, order: list[int]) -> None:
    schema = Schema.fit(log)
    chosen = [case for case in order if case < log.cases]
    whole, part = schema.encode(log), schema.encode(log.select(chosen))
    rows = [r for c in chosen for r in range(log.offsets[c], log.offsets[c + 1])]
    assert whole.codes[rows].tolist() == part.codes.tolist()
    assert whole.numbers[rows].tobytes() == part.numbers.tobytes()


@settings(max_examples=50, deadline=None)
@given(logs())
def test_a_schema_survives_its_json(log: EventLog) -> None:
    schema = Schema.fit(log)
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    assert again.encode(log).numbers.tobytes() == schema.encode(log).numbers.tobytes()


def paths(raw: object, at: tuple = ()) -> list[tuple]:
    items = (
        raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    )
    return [p for k, v in items for p in [(*at, k), *paths(v, (*at, k))]]


def whole_schema() -> dict:
    log = EventLog.from_traces([["a", "b"], ["a"]])
    log = EventLog(
        log.case_ids,
        log.offsets,
        "activity",
        log.categorical,
        {"cost": np.array([1.0, 2.0, 3.0])},
        np.array([0, 1, 2]),
    )
    return json.loads(json.dumps(Schema.fit(log).to_json()))


@pytest.mark.parametrize("path", paths(whole_schema()), ids=lambda p: ".".join(map(str, p)))
@pytest.mark.parametrize("damage", ["absent", "wrong type"])
def test_every_damaged_field_is_refused_by_name(path: tuple, damage: str) -> None:
    raw = whole_schema()
    inner = raw
    for key in path[:-1]:
        inner = inner[key]
    if damage == "wrong type":
        inner[path[-1]] = [17] if not isinstance(inner[path[-1]], list) else "text"
    elif isinstance(inner, dict):
        del inner[path[-1]]
    else:
        inner[path[-1]] = None
    with pytest.raises(SpecError) as caught:
        Schema.from_json(raw)
    named = [key for key in path if isinstance(key, str)][-1]
    assert named in caught.value.wrong
    assert caught.value.expected
    assert caught.value.remedy
