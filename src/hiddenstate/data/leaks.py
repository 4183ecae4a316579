"""Columns that give the answer away: known only afterwards, yet written beside earlier events.

Each rule asks whether a column foretells the rest of its case better than anything that is known
at the time could. Guesses are learnt on one half of the cases and judged on the other, so that a
column with many values (a name of the case, say) cannot pass by remembering; and a column is
suspect only if it leaves at most a tenth of the errors of the best honest guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog, Floats, Int64

# Fewer cases or events than these prove nothing.
FEWEST_CASES = 100
FEWEST_EVENTS = 200
# Larger logs are judged on this many cases, drawn once.
MOST_CASES = 20_000
NEARLY = 0.97
ERRORS_LEFT = 0.1
BINS = 50


@dataclass(frozen=True)
class Leak:
    """A column that gives the answer away, with what was measured."""

    column: str
    reason: str
    evidence: str


def leaks(log: EventLog, answers: Sequence[tuple[str, NDArray[np.integer]]] = ()) -> list[Leak]:
    """Return the attributes that look as if they were written down after the fact.

    Three rules: a value that appears only with the last event (and says so more plainly than the
    activity does); a value that is there from the first event and foretells how the case ends,
    how many events it has or how long it takes; a value that foretells the next activity, or the
    time that is left. Logs of fewer than FEWEST_CASES cases are not judged.

    answers: what else a model is asked about each case: a name, and codes [C], -1 where it is not
             known; a value from the first event must not foretell them either
    """
    cases = np.flatnonzero(log.lengths > 0)
    if len(cases) > MOST_CASES:
        drawn = np.random.default_rng(0).choice(len(cases), MOST_CASES, replace=False)
        cases = cases[np.sort(drawn)]
    if len(cases) < FEWEST_CASES:
        return []
    log = log.select(cases)
    facts = _Facts(log, [(asked, codes[cases].astype(np.int64)) for asked, codes in answers])
    rules = (_late, _foretells_case, _foretells_next)
    found = []
    for name, column in _attributes(log):
        leak = next((leak for rule in rules if (leak := rule(facts, name, column))), None)
        if leak:
            found.append(leak)
    return found


class _Facts:
    """What the rules ask of a log, worked out once; `half` tells the two halves of cases apart."""

    def __init__(self, log: EventLog, answers: list[tuple[str, Int64]]) -> None:
        self.answers = answers
        self.case = log.case_of_event()
        self.place = log.position_of_event()
        self.lengths = log.lengths
        self.first = log.offsets[:-1]
        self.last = log.offsets[1:] - 1
        self.half = np.random.default_rng(1).permutation(log.cases) % 2 == 0
        activity = log.activities.codes.astype(np.int64)
        self.kinds = len(log.activities.labels)
        self.activity = activity
        self.is_last = np.zeros(log.events, dtype=bool)
        self.is_last[self.last] = True
        self.next = np.append(activity[1:], 0)
        self.next[self.is_last] = self.kinds
        self.pair = np.append(0, activity[:-1] + 1)
        self.pair[self.first] = 0
        self.pair = self.pair * self.kinds + activity
        self.left_s: Floats | None = None
        self.until_next_s: Floats | None = None
        if log.time_us is not None:
            end = log.time_us[self.last]
            self.left_s = (end[self.case] - log.time_us) / 1e6
            self.until_next_s = np.append(np.diff(log.time_us), 0) / 1e6


def _attributes(log: EventLog) -> Iterator[tuple[str, Int64 | Floats]]:
    """Yield attributes as codes (-1 missing) or as numbers (NaN missing)."""
    for name, column in log.categorical.items():
        if name != log.activity:
            yield name, column.codes.astype(np.int64)
    yield from log.numeric.items()


def _late(facts: _Facts, name: str, column: Int64 | Floats) -> Leak | None:
    filled = _filled(column) & (facts.lengths[facts.case] > 1)
    cases = np.unique(facts.case[filled])
    if len(cases) < max(FEWEST_CASES // 5, 0.05 * len(facts.lengths)):
        return None
    last = float(facts.is_last[filled].mean())
    ends = np.bincount(facts.activity, facts.is_last, facts.kinds)
    share = ends / np.maximum(np.bincount(facts.activity, minlength=facts.kinds), 1)
    by_activity = float(share[facts.activity[filled]].mean())
    if not _betrays(last, by_activity):
        return None
    return Leak(
        name,
        "it is filled only at the last event of a case",
        f"{last:.1%} of its values stand at the end of their case, in {len(cases)} cases; by their "
        f"activities {by_activity:.1%} would",
    )


def _foretells_case(facts: _Facts, name: str, column: Int64 | Floats) -> Leak | None:
    value = column[facts.first]
    # A value counts as known from the start only if the case never says otherwise.
    other = _filled(column) & (column != value[facts.case])
    steady = _filled(value) & (np.bincount(facts.case, other, len(facts.lengths)) == 0)
    if steady.sum() < max(FEWEST_CASES, 0.5 * len(facts.lengths)):
        return None
    value, half = value[steady], facts.half[steady]
    known = facts.activity[facts.first][steady]
    for target, what in (
        (facts.activity[facts.last][steady], "the last activity"),
        (facts.lengths[steady], "the number of events"),
    ):
        leak = _judge(name, what, _codes(value), target, [known], half)
        if leak:
            return leak
    for asked, codes in facts.answers:
        answer = codes[steady]
        told = answer >= 0
        if told.sum() < FEWEST_CASES:
            continue
        leak = _judge(
            name,
            f"the answer to {asked}",
            _codes(value[told]),
            answer[told],
            [known[told]],
            half[told],
        )
        if leak:
            return leak
    amounts: list[tuple[NDArray[Any], str]] = [(facts.lengths[steady], "the number of events")]
    if facts.left_s is not None:
        amounts.append((facts.left_s[facts.first][steady], "how long the case takes"))
    return _rises(name, "from the first event on it rises with", value, amounts)


def _foretells_next(facts: _Facts, name: str, column: Int64 | Floats) -> Leak | None:
    filled = _filled(column)
    if filled.sum() < max(FEWEST_EVENTS, 0.05 * len(filled)):
        return None
    is_last = facts.is_last[filled]
    leak = _judge_event(facts, name, column, "whether the case ends here", filled, facts.is_last)
    leak = leak or _judge_event(
        facts, name, column, "the next activity", filled & ~facts.is_last, facts.next
    )
    if leak or facts.left_s is None or facts.until_next_s is None:
        return leak
    amounts = [
        (facts.until_next_s[filled][~is_last], "the time until the next event"),
        (facts.left_s[filled][~is_last], "the time that the case has left"),
    ]
    return _rises(name, "it rises with", column[filled][~is_last], amounts)


def _judge_event(
    facts: _Facts,
    name: str,
    column: Int64 | Floats,
    what: str,
    rows: NDArray[np.bool_],
    target: NDArray[Any],
) -> Leak | None:
    """Judge the column together with the activity, against the activity and the one before."""
    if rows.sum() < FEWEST_EVENTS:
        return None
    activity = facts.activity[rows]
    value = _codes(column[rows]) * facts.kinds + activity
    half = facts.half[facts.case[rows]]
    honest = [activity, facts.pair[rows]]
    return _judge(name, what, value, target[rows].astype(np.int64), honest, half)


def _judge(
    name: str, what: str, value: Int64, target: Int64, honest: list[Int64], half: NDArray[np.bool_]
) -> Leak | None:
    told = _accuracy(value, target, half)
    guess = max(_accuracy(known, target, half) for known in (np.zeros_like(value), *honest))
    if not _betrays(told, guess):
        return None
    return Leak(
        name,
        f"it foretells {what}",
        f"right for {told:.1%} on cases not used to learn it; without it at best {guess:.1%}",
    )


def _betrays(told: float, guess: float) -> bool:
    """Return whether a column is nearly right where the best honest guess is clearly not."""
    return told >= NEARLY > guess and 1 - told <= ERRORS_LEFT * (1 - guess)


def _accuracy(value: Int64, target: Int64, half: NDArray[np.bool_]) -> float:
    """Return how often the commonest target of each value in one half is right in the other."""
    _, value = np.unique(value, return_inverse=True)
    kinds, target = np.unique(target, return_inverse=True)
    overall = int(np.bincount(target[half]).argmax()) if half.any() else 0
    guess = np.full(int(value.max()) + 1, overall)
    pairs, counts = np.unique(value[half] * len(kinds) + target[half], return_counts=True)
    rising = np.argsort(counts, kind="stable")
    # The last assignment wins, so the commonest target of a value stays.
    guess[pairs[rising] // len(kinds)] = pairs[rising] % len(kinds)
    right = guess[value[~half]] == target[~half]
    return float(right.mean()) if len(right) else 0.0


def _rises(
    name: str, how: str, value: Int64 | Floats, amounts: list[tuple[NDArray[Any], str]]
) -> Leak | None:
    if not np.issubdtype(value.dtype, np.floating) or len(value) < FEWEST_CASES:
        return None
    for amount, what in amounts:
        if len(np.unique(amount)) < BINS or len(np.unique(value)) < BINS:
            continue
        rank = float(np.corrcoef(_ranks(value), _ranks(amount))[0, 1])
        if rank >= NEARLY:
            return Leak(name, f"{how} {what}", f"rank correlation {rank:.3f} over {len(value)}")
    return None


def _ranks(values: NDArray[Any]) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], dtype=np.float64)


def _filled(column: Int64 | Floats) -> NDArray[np.bool_]:
    return ~np.isnan(column) if np.issubdtype(column.dtype, np.floating) else column >= 0


def _codes(value: Int64 | Floats) -> Int64:
    """Return few-valued numbers as they are and others in equally filled bins, from 0."""
    distinct, codes = np.unique(value, return_inverse=True)
    if np.issubdtype(value.dtype, np.floating) and len(distinct) > 4 * BINS:
        edges = np.quantile(value, np.linspace(0, 1, BINS + 1)[1:-1])
        codes = np.searchsorted(edges, value, side="right")
    return np.asarray(codes, dtype=np.int64)
