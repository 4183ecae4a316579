"""The simulator, its exact filter, and what the ceiling promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema.log import EventLog
from hiddenstate.tasks import END, NextEvent, compare, fit_floors, score
from hiddenstate.tasks.simulator import Oracle, Process, simulate, table, ticket_process


def tiny(seed: int = 0) -> Process:
    """A random process of 3 facts, 3 stages and 3 activities with rich overlaps."""
    rng = np.random.default_rng(seed)
    stages = ["s0", "s1", "s2", "over"]
    moves = []
    for stage in stages[:-1]:
        ends = [(a, to) for a in "abc" for to in stages[:-1]] + [(END, "over")]
        chances = rng.dirichlet(np.ones(len(ends)), size=3).T
        moves += [(stage, a, to, p) for (a, to), p in zip(ends, chances)]
    return Process.build(rng.dirichlet(np.ones(3)), stages, moves, END)


def joint(process: Process, trace: list[int], first: np.ndarray | None = None) -> float:
    """Probability of a trace's beginning, by summing over every path of stages and every fact."""
    total = 0.0
    start = process.start if first is None else first
    for facts in range(len(process.prior)):
        for path in itertools.product(range(process.stages), repeat=len(trace) + 1):
            p = start[path[0], facts]
            for action, here, to in zip(trace, path, path[1:]):
                p *= sum(
                    m.probability[facts]
                    for m in process.moves
                    if (m.stage, m.action, m.to) == (here, action, to)
                )
            total += p
    return total


def log_of(process: Process, traces: list[list[int]]) -> EventLog:
    return EventLog.from_traces([[process.actions[a] for a in trace] for trace in traces])


TRACES = [[0, 1, 2], [0, 1], [2], [0, 1, 0], [1]]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_filter_equals_brute_force_enumeration(seed: int) -> None:
    process = tiny(seed)
    found = np.exp(Oracle(process).log_probabilities(log_of(process, TRACES)))
    expected = [
        [joint(process, [*trace[:n], a]) / joint(process, trace[:n]) for a in range(4)]
        for trace in TRACES
        for n in range(1, len(trace) + 1)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_short_memory_equals_brute_force_from_a_random_place() -> None:
    process = tiny()
    middle = np.zeros_like(process.start)
    here = process.start
    for _ in range(400):
        after = np.zeros_like(here)
        for move in process.moves:
            if move.action != process.end:
                after[move.to] += here[move.stage] * move.probability
        middle, here = middle + after, after
    middle /= middle.sum()
    found = np.exp(Oracle(process, memory=2).log_probabilities(log_of(process, TRACES)))
    expected = []
    for trace in TRACES:
        for n in range(1, len(trace) + 1):
            seen, first = (trace[:n], None) if n <= 2 else (trace[n - 2 : n], middle)
            before = joint(process, seen, first)
            expected.append([joint(process, [*seen, a], first) / before for a in range(4)])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_filter_equals_frequencies() -> None:
    process = tiny()
    traces = process.sample(40_000, np.random.default_rng(0))
    beginning = [0, 1]
    following = np.zeros(4)
    for trace in traces:
        if trace[:2].tolist() == beginning:
            following[trace[2] if len(trace) > 2 else process.end] += 1
    log = log_of(process, [beginning])
    p = np.exp(Oracle(process).log_probabilities(log))[1]
    error = np.sqrt(p * (1 - p) / following.sum())
    assert (np.abs(following / following.sum() - p) < 4.5 * error).all()


def test_every_stage_leads_somewhere_with_probability_one() -> None:
    process = ticket_process()
    leaving = np.zeros((process.stages, len(process.prior)))
    for move in process.moves:
        leaving[move.stage] += move.probability
    np.testing.assert_allclose(leaving[:-1], 1, atol=1e-12)
    assert not leaving[-1].any()
    assert process.prior.sum() == pytest.approx(1)


def test_simulated_logs_are_whole() -> None:
    log = simulate(600, seed=3)
    assert log.cases == 600
    median = np.median(log.lengths)
    assert 26 <= median <= 38
    assert log.lengths.min() >= 10
    assert np.quantile(log.lengths, 0.99) < 70
    assert log.time_us is not None
    within = np.ones(log.events, dtype=np.bool_)
    within[log.offsets[:-1]] = False
    assert (np.diff(log.time_us)[within[1:]] >= 0).all()
    starts = log.starts_us
    assert starts is not None
    assert (np.diff(starts) >= 0).all()
    minutes = log.time_us // 60_000_000
    assert set((minutes // 1440 + 3) % 7) == {0, 1, 2, 3, 4}
    assert ((minutes % 1440 >= 7 * 60) & (minutes % 1440 < 17 * 60)).all()


def test_the_seed_fixes_the_log() -> None:
    rows = [list(table(simulate(20, seed=seed))) for seed in (5, 5, 6)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_rows_are_text_with_a_header() -> None:
    log = simulate(3, seed=0)
    header, *rows = table(log)
    assert header[:3] == ("ticket", "activity", "timestamp")
    assert len(rows) == log.events
    assert {len(row) for row in rows} == {len(header)}
    first = dict(zip(header, rows[1]))
    assert first["activity"] == f"account: {first['account']}"
    assert first["timestamp"].endswith("Z")


def test_attributes_follow_from_the_activity_alone() -> None:
    log = simulate(200, seed=1)
    for name in ("account", "product", "team"):
        column = log.categorical[name].codes
        for code in np.unique(log.activities.codes):
            assert len(np.unique(column[log.activities.codes == code])) == 1


def test_the_ceiling_is_not_passed_by_the_process_itself() -> None:
    """The oracle's own probabilities are calibrated, so its mean loss is its mean entropy."""
    log = simulate(800, seed=2)
    log_p = Oracle().log_probabilities(log)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, atol=1e-9)
    task = NextEvent().fit(log)
    judged = Oracle().judge(log, task.targets(log), task.classes)
    p = np.exp(log_p)
    entropy = -(p * np.where(p > 0, log_p, 0)).sum(axis=1).mean()
    found = score(judged).metrics
    assert found["log_loss"].low < entropy < found["log_loss"].high
    assert found["accuracy"].low < p.max(axis=1).mean() < found["accuracy"].high


def test_the_memory_is_long() -> None:
    """0.3 nats from the best n-gram to the ceiling, a third of it on lags of 20 and more."""
    train, test = simulate(20_000, seed=0), simulate(400, seed=1)
    task = NextEvent().fit(train)
    targets = task.targets(test)
    floors = fit_floors(task, train.select(range(18_000)), train.select(range(18_000, 20_000)))
    full = Oracle().judge(test, targets, task.classes)
    gap = compare(full, floors.judge(test, targets)["ngram"], "log_loss")
    assert gap.high < -0.3
    some = test.select(range(14))
    shown = task.targets(some)
    whole = Oracle().judge(some, shown, task.classes)
    short = Oracle(memory=19).judge(some, shown, task.classes)
    assert compare(whole, short, "log_loss").difference < gap.difference / 3


def test_foreign_logs_are_refused() -> None:
    oracle = Oracle()
    foreign = EventLog.from_traces([["opened by phone", "acount: basic"]])
    assert not oracle.knows(foreign)
    with pytest.raises(DataError, match="Did you mean account: basic"):
        oracle.log_probabilities(foreign)
    shuffled = EventLog.from_traces([["opened by phone", "site: north"]])
    assert oracle.knows(shuffled)
    with pytest.raises(DataError, match="first 2 events have probability zero"):
        oracle.log_probabilities(shuffled)
    with pytest.raises(UsageError, match="0 tickets"):
        simulate(0)
