"""Laws of decoding: what a search or a draw promises, on spaces small enough to look at whole."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from hiddenstate.errors import UsageError
from hiddenstate.runtime.decoding import Hypothesis, beam_search, choices, draw, sample

V, END, LONGEST, SOURCES = 4, 3, 4, 5


class Table:
    """A model whose next log probabilities are a fixed random function of all symbols before."""

    def __init__(self, seed: int = 0, sharpness: float = 1.5) -> None:
        self.seed, self.sharpness = seed, sharpness

    def after(self, source: int, said: tuple[int, ...]) -> np.ndarray:
        scores = np.random.default_rng([self.seed, source, *said]).normal(size=V) * self.sharpness
        return scores - np.log(np.exp(scores).sum())

    def step(self, codes: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        now = [(source, (*said, int(code))) for (source, said), code in zip(state, codes)]
        return np.array([self.after(*each) for each in now]).reshape(len(now), V), now

    def select(self, state: Any, rows: np.ndarray) -> Any:
        return [state[row] for row in rows]

    def begin(self, count: int = SOURCES) -> tuple[np.ndarray, Any]:
        return np.full(count, END), [(source, ()) for source in range(count)]

    def log_probability(self, source: int, codes: tuple[int, ...]) -> float:
        said = (END, *codes)
        steps = zip((*codes, END), range(1, len(said) + 1))
        return float(sum(self.after(source, said[:t])[code] for code, t in steps))


def every_sequence(forbidden: int | None = None) -> Iterator[tuple[int, ...]]:
    symbols = [code for code in range(V) if code not in (END, forbidden)]
    for length in range(LONGEST + 1):
        yield from product(symbols, repeat=length)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("forbidden", [None, 0])
def test_a_beam_that_holds_everything_finds_the_best_of_everything(
    penalty: float, forbidden: int | None
) -> None:
    for seed in range(4):
        table = Table(seed)
        first, state = table.begin()
        found = beam_search(
            table,
            first,
            state,
            end=END,
            longest=LONGEST,
            width=1000,
            length_penalty=penalty,
            forbidden=() if forbidden is None else (forbidden,),
        )
        for source, hypotheses in enumerate(found):
            scores = {
                codes: Hypothesis(np.array(codes), table.log_probability(source, codes)).score(
                    penalty
                )
                for codes in every_sequence(forbidden)
            }
            best = max(scores, key=lambda codes: scores[codes])
            assert tuple(hypotheses[0].codes) == best
            for each in hypotheses:
                assert each.score(penalty) == pytest.approx(scores[tuple(each.codes)], rel=1e-12)


def test_the_score_is_the_one_of_the_paper() -> None:
    found = Hypothesis(np.array([2, 0]), -3.0)
    assert found.score(0.0) == -3.0
    assert found.score(0.6) == pytest.approx(-3.0 / (8 / 6) ** 0.6)


def test_a_beam_of_one_is_greedy() -> None:
    for seed in range(20):
        table = Table(seed)
        first, state = table.begin()
        found = beam_search(table, first, state, end=END, longest=LONGEST, width=1)
        drawn = sample(table, first, state, end=END, longest=LONGEST, temperature=0)
        greedy = np.stack(list(drawn), axis=1)
        for row, hypotheses in zip(greedy, found, strict=True):
            (one,) = hypotheses
            said = row.tolist()
            assert one.codes.tolist() == (said[: said.index(END)] if END in said else said)


def test_a_wider_beam_finds_nothing_worse_in_the_end_and_sources_do_not_mix() -> None:
    table = Table(7)
    first, state = table.begin()
    settings: dict[str, Any] = {"end": END, "longest": LONGEST, "length_penalty": 0.7}
    together = beam_search(table, first, state, width=3, **settings)
    for source in range(SOURCES):
        (alone,) = beam_search(table, first[:1], state[source : source + 1], width=3, **settings)
        assert [h.codes.tolist() for h in alone] == [h.codes.tolist() for h in together[source]]
        assert len(alone) <= 3
        scores = [h.score(0.7) for h in alone]
        assert scores == sorted(scores, reverse=True)


def test_early_ends_that_are_bad_do_not_stop_the_search() -> None:
    class Long(Table):
        def after(self, source: int, said: tuple[int, ...]) -> np.ndarray:
            del source
            p = [0.9, 0.02, 0.02, 0.06] if len(said) < 5 else [0.03, 0.03, 0.04, 0.9]
            return np.log(p)

    for width in (1, 2, 3, 4, 10):
        first, state = Long().begin(2)
        for best, *_ in beam_search(Long(), first, state, end=END, longest=9, width=width):
            assert best.codes.tolist() == [0, 0, 0, 0]


def test_the_longest_length_holds_for_each_source() -> None:
    table = Table(1, sharpness=0.1)
    first, state = table.begin(3)
    limits = np.array([0, 2, 4])
    for width in (1, 2, 100):
        found = beam_search(
            table, first, state, end=END, longest=limits, width=width, length_penalty=5.0
        )
        longest = [max(len(h.codes) for h in each) for each in found]
        assert all(length <= limit for length, limit in zip(longest, limits))
        assert longest[0] == 0
        assert len(found[0]) == 1


def test_draws_come_as_often_as_their_probability() -> None:
    p = np.array([[0.5, 0.0, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0]])
    count = 20_000
    rng = np.random.default_rng(0)
    drawn = np.stack([draw(p, rng) for _ in range(count)], axis=1)
    for row, wanted in zip(drawn, p):
        share = np.bincount(row, minlength=4) / count
        assert np.abs(share - wanted).max() < 4 * np.sqrt(0.25 / count)
        assert (share[wanted == 0] == 0).all()


def test_samples_of_whole_sequences_come_as_often_as_their_probability() -> None:
    table, count = Table(3), 4000
    first, state = np.full(count, END), [(0, ())] * count
    drawn = np.stack(list(sample(table, first, state, end=END, longest=2, seed=5)), axis=1)
    for one in range(V):
        for two in range(V):
            p = np.exp(table.after(0, (END,))[one])
            p *= float(two == END) if one == END else np.exp(table.after(0, (END, one))[two])
            share = (drawn == [one, two]).all(axis=1).mean()
            assert abs(share - p) < 4 * np.sqrt(0.25 / count)


def test_the_same_seed_draws_the_same_and_all_ended_ends() -> None:
    table = Table(2)
    first, state = table.begin(40)
    once, again, other = (
        np.stack(list(sample(table, first, state, end=END, longest=50, seed=seed)), axis=1)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(once, again)
    assert once.shape != other.shape or (once != other).any()
    assert once.shape[1] < 50
    for row in once.tolist():
        at = row.index(END)
        assert row[at:] == [END] * (len(row) - at)
    assert len(list(sample(table, first, state, longest=7))) == 7


def test_top_k_and_top_p_leave_exactly_their_sets() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(12) * 0.5, size=50)
    for k in (1, 3, 12, 40):
        left = choices(np.log(p), top_k=k)
        for row, kept in zip(p, left):
            best = set(np.argsort(-row, kind="stable")[:k].tolist())
            assert set(np.flatnonzero(kept).tolist()) == best
            np.testing.assert_allclose(kept[kept > 0] / row[kept > 0], 1 / row[list(best)].sum())
    for share in (0.05, 0.5, 0.9, 1.0):
        left = choices(np.log(p), top_p=share)
        for row, kept in zip(p, left):
            inside = kept > 0
            assert row[inside].sum() >= share - 1e-12
            assert row[inside].min() >= row[~inside].max(initial=0)
            assert row[inside].sum() - row[inside].min() < share
    np.testing.assert_allclose(choices(np.log(p), top_p=1.0), p)


def test_equal_probabilities_leave_the_lower_codes() -> None:
    even = np.log(np.full((1, 4), 0.25))
    assert choices(even, top_k=2).tolist() == [[0.5, 0.5, 0, 0]]
    assert choices(even, top_p=0.5).tolist() == [[0.5, 0.5, 0, 0]]
    assert choices(even, temperature=0).tolist() == [[1, 0, 0, 0]]


def test_temperature_and_forbidden_codes_before_the_rest() -> None:
    p = np.array([[0.6, 0.3, 0.1]])
    cold = choices(np.log(p), temperature=0.5)
    np.testing.assert_allclose(cold, p**2 / (p**2).sum())
    left = choices(np.log(p), forbidden=(0,), top_k=1)
    assert left.tolist() == [[0, 1, 0]]


def test_settings_out_of_range_are_refused() -> None:
    table = Table()
    first, state = table.begin()
    for settings in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(UsageError, match="0 < top_p <= 1"):
            choices(np.zeros((1, 3)), **settings)
    for wrong in ({"width": 0}, {"length_penalty": -0.5}, {"longest": -1}):
        with pytest.raises(UsageError, match="at least 1 hypothesis"):
            beam_search(table, first, state, **{"end": END, "longest": 3, **wrong})
