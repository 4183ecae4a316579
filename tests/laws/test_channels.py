"""Channels: frames in any cut encode alike, gaps are filled from their own past, scales return."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiddenstate.errors import DataError, ShapeError, SpecError
from hiddenstate.schema import Channels, Scaler
from hiddenstate.schema.channels import CALENDAR, LIMIT, carried, level

NAMES = ("load", "wind", "heat")
NUMBERS = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6))


@st.composite
def frames(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    steps = sum(lengths)
    flat = draw(st.lists(NUMBERS, min_size=3 * steps, max_size=3 * steps))
    return np.array(flat).reshape(steps, 3), np.cumsum([0, *lengths])


def channels(**options: object) -> Channels:
    scalers = {name: Scaler(place - 1.0, 2.0 + place) for place, name in enumerate(NAMES)}
    return Channels(scalers, **options)  # type: ignore[arg-type]


def filled_by_hand(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    filled = values.copy()
    for begin, end in itertools.pairwise(offsets):
        for row in range(begin + 1, end):
            gone = np.isnan(filled[row])
            filled[row, gone] = filled[row - 1, gone]
    return filled


@given(frames())
def test_a_gap_is_filled_by_the_last_value_of_its_own_series(
    given: tuple[np.ndarray, np.ndarray],
) -> None:
    values, offsets = given
    np.testing.assert_array_equal(carried(values, offsets), filled_by_hand(values, offsets))


@given(frames(), st.booleans(), st.sampled_from([0, 1, 3]))
def test_series_encode_alone_as_together(
    given: tuple[np.ndarray, np.ndarray], calendar: bool, around: int
) -> None:
    values, offsets = given
    known = tuple(CALENDAR) if calendar else ()
    schema = channels(gaps=("load", "heat"), calendar=known, around=around)
    times_us = np.arange(len(values)) * 3_700_000_000
    together = schema.encode(values, times_us, offsets)
    assert together.shape == (len(values), len(schema.number_names))
    assert np.isfinite(together).all()
    assert (np.abs(together[:, :3]) <= LIMIT).all()
    for begin, end in itertools.pairwise(offsets):
        alone = schema.encode(values[begin:end], times_us[begin:end])
        np.testing.assert_allclose(alone, together[begin:end], rtol=1e-6, atol=1e-6)
        for length in range(end - begin):
            # A step's input rests on the steps up to it.
            earlier = schema.encode(values[begin : begin + length], times_us[begin:][:length])
            np.testing.assert_allclose(earlier, alone[:length], rtol=1e-6, atol=1e-6)
    gaps = np.isnan(values[:, [0, 2]])
    assert np.array_equal(together[:, 3:5], gaps)


@given(frames(), st.sampled_from([0, 2]))
def test_shared_channels_are_sequences_by_themselves(
    given: tuple[np.ndarray, np.ndarray], around: int
) -> None:
    values, offsets = given
    schema = channels(gaps=("wind",), shared=True, around=around)
    lanes = schema.encode(values, None, offsets)
    assert schema.code_sizes == (3,)
    assert schema.number_names == ("value", "value is missing")
    assert lanes.shape == (3, len(values), 2)
    together = channels(gaps=NAMES, around=around).encode(values, None, offsets)
    for place in range(3):
        assert np.array_equal(lanes[place], together[:, [place, 3 + place]])


def test_the_level_is_the_mean_of_the_last_steps() -> None:
    filled = np.array([[1.0], [3.0], [8.0], [4.0], [6.0]])
    offsets = np.array([0, 3, 5])
    assert level(filled, offsets, 2).ravel().tolist() == [1.0, 2.0, 5.5, 4.0, 5.0]
    assert np.array_equal(level(filled, offsets, 1), filled)
    schema = Channels({"y": Scaler()}, around=2)
    assert schema.encode(filled, None, offsets).ravel().tolist() == [0.0, 2.0, 6.0, 0.0, 2.0]


@given(frames())
def test_what_is_scaled_comes_back(given: tuple[np.ndarray, np.ndarray]) -> None:
    values, _ = given
    schema = channels()
    np.testing.assert_allclose(schema.decode(schema.scale(values)), values, atol=1e-9)
    some = schema.scale(values[:, [2, 0]], (2, 0))
    np.testing.assert_array_equal(some, schema.scale(values)[:, [2, 0]])
    np.testing.assert_allclose(schema.decode(some, (2, 0)), values[:, [2, 0]], atol=1e-9)


def test_scalers_see_the_training_part_and_no_logarithm() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 3, (50, 1)))
    schema = Channels.fit(("y",), values)
    scaled = schema.scale(values)
    assert scaled.mean() == pytest.approx(0)
    assert scaled.std() == pytest.approx(1)
    assert Channels.fit(("y",), values > 1, binary=True).scale(values > 1).max() == 1.0


def test_the_calendar_turns_with_the_clock() -> None:
    schema = Channels({"y": Scaler()}, calendar=("hour_of_day", "day_of_week"))
    # Monday 1 January 2024, six in the morning: a quarter of the day.
    monday = np.array([np.datetime64("2024-01-01T06:00:00", "us").astype(np.int64)])
    numbers = schema.encode(np.zeros((1, 1)), monday)[0]
    quarter = 2 * np.pi / 28
    np.testing.assert_allclose(numbers[1:], [1, 0, np.sin(quarter), np.cos(quarter)], atol=1e-6)
    assert schema.number_names[1:] == (
        "hour_of_day sin",
        "hour_of_day cos",
        "day_of_week sin",
        "day_of_week cos",
    )


def test_a_description_survives_its_json() -> None:
    values = np.array([[1.0, np.nan, 2.0], [3.0, 5.0, 2.0]])
    schema = Channels.fit(NAMES, values, calendar=("hour_of_day",), around=24, shared=True)
    assert schema.gaps == ("wind",)
    text = json.dumps(schema.to_json())
    assert Channels.from_json(json.loads(text)) == schema
    broken = json.loads(text)
    broken["channels"][1]["scale"] = 0
    with pytest.raises(SpecError, match=r"schema\.channels\[1\]\.scale"):
        Channels.from_json(broken)
    broken = json.loads(text)
    broken["channels"][1]["name"] = "load"
    with pytest.raises(SpecError, match="names a channel twice"):
        Channels.from_json(broken)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \[4, 2\]"):
        channels().encode(np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"1 of 3 channels have no value .*: wind"):
        Channels.fit(NAMES, np.array([[1.0, np.nan, 1.0]]))
    with pytest.raises(DataError, match="4 steps and no times"):
        channels(calendar=("hour_of_day",)).encode(np.zeros((4, 3)))
    with pytest.raises(SpecError, match="Did you mean hour_of_day"):
        channels(calendar=("hour_of_dy",))
    with pytest.raises(SpecError, match="channels are none"):
        Channels({})
