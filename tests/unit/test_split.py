"""Splits without leakage, and batches of like length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiddenstate.data import batches, by_column, by_time
from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema import Categorical, EventLog


def log_of(cases: int, events: int = 4, step_us: int = 10) -> EventLog:
    """Return cases that start at 0, step, 2 step ... and whose events are 15 apart."""
    starts = np.arange(cases) * step_us
    times = (starts[:, None] + 15 * np.arange(events)).ravel()
    codes = np.tile(np.arange(events, dtype=np.int32), cases)
    return EventLog(
        np.array([f"c{i}" for i in range(cases)], dtype=object),
        np.arange(cases + 1) * events,
        "act",
        {"act": Categorical(codes, tuple("abcdefgh"[:events]))},
        {},
        times,
    )


def test_a_split_by_time_leaves_the_last_cases_to_the_test() -> None:
    split = by_time(log_of(20))
    assert split.train.tolist() == list(range(14))
    assert split.validation.tolist() == [14, 15]
    assert split.test.tolist() == [16, 17, 18, 19]
    assert "by start" in split.description


def test_a_strict_split_keeps_no_training_event_of_the_test_s_time() -> None:
    log = log_of(20)
    split = by_time(log, strict=True)
    train, validation, test = split.parts(log)
    assert split.until_us == 160
    for part in (train, validation):
        assert part.time_us is not None
        assert part.time_us.max() < 160
    assert train.ended is not None
    assert train.ended.tolist() == [True] * 12 + [False] * 2
    assert test.events == 16
    assert split.dropped == (16 * 4 - train.events - validation.events, 0)
    assert split.dropped[0] > 0


def test_a_strict_split_counts_the_cases_that_become_empty() -> None:
    log = log_of(10, step_us=0)
    split = by_time(log, strict=True)
    assert split.dropped == (32, 8)
    assert split.parts(log)[0].cases == 0


def test_a_column_can_make_the_split() -> None:
    log = log_of(4, events=2)
    parts = Categorical(np.repeat(np.array([2, 0, 1, 0], np.int32), 2), ("train", "Valid", "test"))
    log = EventLog(log.case_ids, log.offsets, "act", {**log.categorical, "part": parts}, {})
    split = by_column(log, "part")
    assert (split.train.tolist(), split.validation.tolist()) == ([1, 3], [2])
    assert (split.test.tolist(), split.column) == ([0], "part")


@pytest.mark.parametrize(
    ("codes", "labels", "wrong"),
    [
        ([0, 0, 1, 1], ("train", "later"), "'later'"),
        ([0, 0, -1, 0], ("train",), "missing"),
        ([0, 1, 0, 0], ("train", "test"), "'c0' is in two parts"),
    ],
)
def test_a_column_that_is_no_split_is_refused(codes: list, labels: tuple, wrong: str) -> None:
    log = log_of(2, events=2)
    column = Categorical(np.array(codes, np.int32), labels)
    log = EventLog(log.case_ids, log.offsets, "act", {**log.categorical, "part": column}, {})
    with pytest.raises(DataError, match=wrong):
        by_column(log, "part")
    with pytest.raises(DataError, match="no categorical column"):
        by_column(log, "prat")


def test_shares_and_logs_that_do_not_fit_are_refused() -> None:
    untimed = EventLog.from_traces([["a"]] * 5)
    assert "place in the file" in by_time(untimed).description
    with pytest.raises(UsageError, match="sum"):
        by_time(log_of(9), validation=0.5, test=0.5)
    with pytest.raises(DataError, match="2 cases"):
        by_time(log_of(2))
    with pytest.raises(UsageError, match="without times"):
        by_time(untimed, strict=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 300), max_size=200),
    st.integers(1, 40),
    st.integers(1, 500),
    st.booleans(),
)
def test_batches_hold_every_case_once_within_the_budget(
    lengths: list[int], batch_size: int, batch_events: int, shuffle: bool
) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    found = batches(sizes, batch_size=batch_size, batch_events=batch_events, shuffle=shuffle)
    assert sorted(case for batch in found for case in batch) == list(range(len(sizes)))
    for batch in found:
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= batch_events


def test_batches_follow_seed_and_epoch_and_pad_little() -> None:
    sizes = np.random.default_rng(0).integers(1, 200, 5000)

    def drawn(**options: int) -> list[list[int]]:
        return [batch.tolist() for batch in batches(sizes, **options)]

    assert drawn(seed=1, epoch=2) == drawn(seed=1, epoch=2)
    assert drawn(seed=1, epoch=2) != drawn(seed=1, epoch=3)
    assert drawn(seed=1) != drawn(seed=2)
    padded = sum(len(batch) * sizes[batch].max() for batch in drawn())
    assert padded < 1.15 * sizes.sum()
    with pytest.raises(UsageError):
        batches(sizes, batch_size=0)
