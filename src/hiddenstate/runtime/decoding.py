"""From a model of the next symbol to whole sequences: sampled, greedy, or by beam search.

It serves every model that goes symbol by symbol: texts, translations, the rest of a case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import UsageError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Stepper(Protocol):
    """A model of the next symbol, for R sequences at once."""

    def step(self, codes: Integers, state: Any) -> tuple[Floats, Any]:
        """Read one code of each sequence [R]; return log p [R, V] of the next, and the state."""

    def select(self, state: Any, rows: Integers) -> Any:
        """Return the state of some rows; a row may be named several times."""


class Hypothesis(NamedTuple):
    """A sequence that a search has found.

    codes:           its symbols [M], without the end
    log_probability: of these and of the end, in nats
    """

    codes: Integers
    log_probability: float

    def score(self, length_penalty: float) -> float:
        """Return log p / ((5 + M + 1) / 6)^a (Wu et al. 2016, arXiv:1609.08144, equation 14)."""
        return float(self.log_probability / _norm(len(self.codes) + 1, length_penalty))


def beam_search(
    stepper: Stepper,
    first: Integers,
    state: Any,
    *,
    end: int,
    longest: int | Integers,
    width: int = 5,
    length_penalty: float = 1.0,
    forbidden: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Return the best of what was found for each source [B], 1 to `width`, the highest score first.

    first:          codes [B] that the first step reads; state belongs to them
    longest:        most symbols before the end, for all or for each source [B]: then only the end
                    may follow
    width:          hypotheses kept for each source; 1 is greedy search
    length_penalty: a of `Hypothesis.score`; 0 compares log probabilities as they are
    forbidden:      codes that are never emitted, such as the unknown symbol

    A hypothesis ends where its end is among the `width` best continuations of its source. Another
    is given up when it cannot come to a higher score than the best that has ended, or when `width`
    have ended and its score is not higher now. All sources go on side by side. Raises UsageError
    for settings out of range.
    """
    sources = len(first)
    limits = np.broadcast_to(np.asarray(longest, dtype=np.int64), sources)
    if width < 1 or length_penalty < 0 or limits.min(initial=0) < 0:
        raise UsageError(
            f"A beam of {width} with length penalty {length_penalty} and at most "
            f"{limits.min(initial=0)} symbols was asked for.",
            "A beam keeps at least 1 hypothesis; the other two are 0 or more.",
            "Take a beam of 5 and a length penalty of 1, for example.",
        )
    found: list[list[Hypothesis]] = [[] for _ in range(sources)]
    ended, highest = np.zeros(sources, np.int64), np.full(sources, -np.inf)
    source, totals = np.arange(sources), np.zeros(sources)
    said, fed = np.zeros((sources, 0), np.int64), np.asarray(first, dtype=np.int64)
    while len(source):
        log_p, state = stepper.step(fed, state)
        log_p = np.array(log_p, dtype=np.float64)
        log_p[:, list(forbidden)] = -np.inf
        full = said.shape[1] >= limits[source]
        log_p[np.ix_(full, np.arange(log_p.shape[1]) != end)] = -np.inf
        rows, codes, values = _continuations(source, totals[:, None] + log_p, width)
        ends = codes == end
        for row, value in zip(rows[ends], values[ends]):
            hypothesis, place = Hypothesis(said[row], float(value)), source[row]
            found[place].append(hypothesis)
            ended[place] += 1
            highest[place] = max(highest[place], hypothesis.score(length_penalty))
        # log p only falls from here on, so that no score can pass the attainable one.
        within = source[rows]
        now = values / _norm(said.shape[1] + 2, length_penalty)
        attainable = values / _norm(limits[within] + 1, length_penalty)
        open_ended = (ended[within] < width) | (now > highest[within])
        lives = ~ends & open_ended & (attainable > highest[within])
        rows, fed, totals, source = rows[lives], codes[lives], values[lives], within[lives]
        said = np.concatenate([said[rows], fed[:, None]], axis=1)
        state = stepper.select(state, rows)
    return [sorted(each, key=lambda h: -h.score(length_penalty))[:width] for each in found]


def _continuations(
    source: Integers, values: Floats, width: int
) -> tuple[Integers, Integers, Floats]:
    """Return row, code and value of the `width` best entries of values [R, V] for each source."""
    count = min(width, values.shape[1])
    codes = np.argpartition(-values, count - 1, axis=1)[:, :count]
    rows = np.repeat(np.arange(len(values)), count)
    codes = codes.ravel()
    values = values[rows, codes]
    order = np.lexsort((codes, -values, source[rows]))
    groups = source[rows[order]]
    rank = np.arange(len(order)) - np.searchsorted(groups, groups)
    kept = order[(rank < width) & ((values[order] > -np.inf) | (rank == 0))]
    return rows[kept], codes[kept], values[kept]


def _norm(length: Any, length_penalty: float) -> Any:
    return ((5 + length) / 6) ** length_penalty


def choices(
    log_p: Floats,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    forbidden: Sequence[int] = (),
) -> Floats:
    """Return the probabilities [R, V] to draw from, given log p [R, V].

    temperature: divides log p first; 0 leaves the most probable symbol alone
    top_k:       leaves the k most probable symbols (Fan et al. 2018, arXiv:1805.04833)
    top_p:       of these, leaves the fewest whose probabilities sum to p or more, the most probable
                 ones (nucleus; Holtzman et al. 2020, arXiv:1904.09751)
    forbidden:   codes of probability 0

    Where probabilities are equal, the lower code goes first. Raises UsageError for settings out of
    range.

    >>> choices(np.log([[0.5, 0.3, 0.2]]), top_p=0.7).round(3).tolist()
    [[0.625, 0.375, 0.0]]
    """
    few = top_k is not None and top_k < 1
    if temperature < 0 or few or (top_p is not None and not 0 < top_p <= 1):
        raise UsageError(
            f"Sampling was asked for with temperature {temperature}, top_k {top_k}, top_p {top_p}.",
            "temperature is 0 or more, top_k 1 or more, and 0 < top_p <= 1.",
            "Leave out those that are not wanted.",
        )
    log_p = np.array(log_p, dtype=np.float64)
    log_p[:, list(forbidden)] = -np.inf
    if temperature == 0:
        temperature, top_k = 1.0, 1
    shifted = (log_p - log_p.max(axis=1, keepdims=True)) / temperature
    p: Floats = np.exp(shifted)
    p /= p.sum(axis=1, keepdims=True)
    if top_k is None and top_p is None:
        return p
    order = np.argsort(-p, axis=1, kind="stable")
    falling = np.take_along_axis(p, order, axis=1)
    if top_k is not None:
        falling[:, top_k:] = 0.0
        falling /= falling.sum(axis=1, keepdims=True)
    if top_p is not None:
        before = np.cumsum(falling, axis=1) - falling
        falling[before >= top_p] = 0.0
        falling /= falling.sum(axis=1, keepdims=True)
    np.put_along_axis(p, order, falling, axis=1)
    return p


def sample(
    stepper: Stepper,
    first: Integers,
    state: Any,
    *,
    longest: int,
    end: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    forbidden: Sequence[int] = (),
    seed: int = 0,
) -> Iterator[Integers]:
    """Yield the drawn codes [R] of one step after another, at most `longest` times.

    first: codes [R] that the first step reads; state belongs to them
    end:   a sequence that has emitted it gives nothing but it; when all have, drawing ends. None:
           sequences have no end

    The settings are those of `choices`. The same seed gives the same codes.
    """
    rng = np.random.default_rng(seed)
    fed = np.asarray(first, dtype=np.int64)
    over = np.zeros(len(fed), dtype=bool)
    for _ in range(longest):
        log_p, state = stepper.step(fed, state)
        p = choices(log_p, temperature=temperature, top_k=top_k, top_p=top_p, forbidden=forbidden)
        fed = draw(p, rng)
        if end is not None:
            fed[over] = end
            over |= fed == end
        yield fed.copy()
        if end is not None and over.all():
            return


def draw(p: Floats, rng: np.random.Generator) -> Integers:
    """Draw a code for each row of probabilities [R, V]; one of probability 0 never comes."""
    rising = np.cumsum(p, axis=1)
    # Below the whole sum, whatever the product is rounded to.
    thresholds = np.minimum(rng.random(len(p)), 1 - 2.0**-40) * rising[:, -1]
    codes: Integers = (rising <= thresholds[:, None]).sum(axis=1)
    return codes
