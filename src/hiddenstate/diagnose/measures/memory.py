"""How far back a layer's state reaches along real sequences: by gradients, and by exchange.

    by gradient   |d state_t / d state_{t-k}| along a sequence, from products of Jacobians
                  (SPEC 6.1; Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, eq. 5)
    by exchange   a state is replaced by another sequence's, the same inputs follow: what is left
                  of the difference k steps later

The two part where a state is latched: a unit held at a stable value has next to no gradient, and
still remembers (Bengio, Simard, Frasconi 1994). Memory has gone only where both have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hiddenstate.diagnose.measures.linear import Ints, Steps
from hiddenstate.diagnose.measures.once import once
from hiddenstate.diagnose.measures.roles import block, candidate, candidate_name, keeping
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace
from hiddenstate.kernels.reverse import through

ANCHORS, PROBES = 8, 32
"""Sequences that are followed, and directions in each, where the layer is small."""
WORK = 1e10
"""Multiply-adds that one layer may cost; fewer sequences and directions are followed beyond."""
NOTHING = 1e-6
"""A share of its first value at which a curve is no longer followed."""


@dataclass(frozen=True)
class Memory:
    """What a layer's state keeps, by lag in steps.

    lags:      [K] from 0; all small ones, then in growing gaps
    gain:      [K] largest singular value of d state_t / d state_{t-k}, root mean square over the
               sequences followed; exactly it while the state has at most PROBES numbers, otherwise
               within the PROBES directions in which the states vary most
    typical:   [K] its geometric mean
    singular:  [K, P] all singular values, geometric means, largest first
    swapped:   [K] what is left of a difference between two states, root mean square
    keeping:   [K] product of the keeping gates (the LSTM's path along c, SPEC 6.4); None: no such
    recurrent: [K] the product that an Elman cell with the candidate's recurrent weights would have
               on the same states; None where the cell has no keeping gate
    longest:   steps of the longest row
    exact:     whether the directions span the whole state
    """

    lags: Ints
    gain: Floats
    typical: Floats
    singular: Floats
    swapped: Floats
    keeping: Floats | None
    recurrent: Floats | None
    longest: int
    exact: bool

    def horizon(self, share: float, curve: Floats | None = None) -> int | None:
        """Return the lag from which on a curve (`gain`) stays under a share of its first value.

        None where it does not do so within the lags seen: the memory reaches beyond the data.
        """
        curve = self.gain if curve is None else curve
        above = np.flatnonzero(~(curve < share * curve[0]))
        last = int(above[-1]) if len(above) else 0
        return int(self.lags[last + 1]) if last + 1 < len(self.lags) else None

    @property
    def reach(self) -> Floats:
        """[K] the larger of `gain` and `swapped`."""
        return np.maximum(self.gain, self.swapped)

    @property
    def exponent(self) -> float:
        """Largest Lyapunov exponent: growth of log |d state_t / d state_{t-k}| a step.

        The first third of the lags is left out, where directions still turn into the largest one.
        """
        if len(self.lags) < 2:
            return 0.0
        first = int(np.searchsorted(self.lags, self.lags[-1] / 3))
        first = min(first, len(self.lags) - 2)
        rise = np.log(self.typical[-1]) - np.log(self.typical[first])
        return float(rise / (self.lags[-1] - self.lags[first]))


@once
@np.errstate(over="ignore", invalid="ignore")
def memory(layer: LayerTrace) -> Memory:
    """Measure the memory of a layer over the longest rows of its batch.

    The layer needs a row of at least one step, and finite states and weights.
    """
    steps = Steps.of(layer.turned())
    rows, ends, count = _followed(steps)
    lags = _lags(int(ends.max()))
    values = _singular(_directions(steps, count), ends, lags, steps.kind, _pull(steps, rows))
    lags = lags[: len(values)]
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    return Memory(
        lags,
        _root_mean_square(values[..., 0]),
        np.exp(np.nanmean(logs[..., 0], axis=1)),
        np.exp(np.nanmean(logs, axis=1)),
        _swapped(steps, rows, lags),
        _along_gates(steps, rows, ends, lags),
        _as_elman(steps, rows, ends, lags),
        int(layer.lengths.max()),
        count == steps.width,
    )


def _lags(longest: int) -> Ints:
    """Return lags from 0 to `longest`: each one up to 16, then a tenth more each time."""
    lags = [0]
    while lags[-1] < longest:
        lags.append(min(longest, max(lags[-1] + 1, round(1.1 * lags[-1]))))
    return np.array(lags, np.int64)


def _root_mean_square(values: Floats) -> Floats:
    """Return [K] from [K, A], over the sequences that reach so far back (the others are NaN)."""
    return np.asarray(np.sqrt(np.nanmean(np.square(values), axis=1)))


def _followed(steps: Steps) -> tuple[Ints, Ints, int]:
    """Return the rows and last steps [A] of the sequences to follow, and how many directions.

    Rows are the longest; all but the first end at steps spread over their last third, so that what
    a model does at its last step alone (an answer, a reset) does not stand for all.
    """
    lengths = steps.layer.lengths
    longest = int(lengths.max())
    size = 2 * steps.params["w_h"].size * longest
    directions = min(steps.width, PROBES)
    anchors = int(np.clip(WORK / (size * directions), 2, ANCHORS))
    directions = int(np.clip(WORK / (size * anchors), min(steps.width, 8), directions))
    order = np.argsort(-lengths, kind="stable")[:anchors]
    rows = np.resize(order[lengths[order] >= 0.7 * longest], anchors)
    back = np.arange(anchors) * lengths[rows] // (3 * anchors)
    return rows, lengths[rows] - 1 - back, directions


def _directions(steps: Steps, count: int) -> Floats:
    """Return orthonormal directions [P, S] of the state: half where the states vary most."""
    drawn = np.random.default_rng(0).standard_normal((count, steps.width))
    if count < steps.width:
        rows, t = np.nonzero(steps.layer.valid)
        pick = np.linspace(0, len(rows) - 1, min(len(rows), 256)).astype(np.int64)
        states = np.concatenate(steps.after(rows[pick], t[pick]), axis=-1)
        _, _, varied = np.linalg.svd(states - states.mean(axis=0), full_matrices=False)
        drawn[: min(count // 2, len(varied))] = varied[: count // 2]
    return _orthonormal(drawn)


def _orthonormal(drawn: Floats) -> Floats:
    """Return an orthonormal basis [P, S] of the span of P rows."""
    return np.ascontiguousarray(np.linalg.qr(drawn.T)[0].T)


Pull: TypeAlias = Callable[[Ints, Ints, Floats], Floats]
"""From sequences by number [A], steps [A] and cotangents [A, P, .] to those a step earlier."""


def _pull(steps: Steps, rows: Ints) -> Pull:
    return lambda some, t, v: steps.pull(rows[some], t, v)


def _singular(first: Floats, ends: Ints, lags: Ints, kind: Any, pull: Pull) -> Floats:
    """Return the singular values [K, A, P] of products of Jacobians that end at `ends`.

    NaN where a sequence does not reach so far back. K ends early where nothing is left.
    """
    v = np.array(np.broadcast_to(first, (len(ends), *first.shape)), dtype=kind)
    scale = np.zeros(len(ends))
    found = np.full((len(lags), len(ends), len(first)), np.nan)
    for k in range(int(lags[-1]) + 1):
        some = np.flatnonzero(ends >= k)
        if k:
            pulled = pull(some, ends[some] - (k - 1), v[some]).astype(np.float64)
            size = np.maximum(np.linalg.norm(pulled, axis=(1, 2)), 1e-300)
            v[some] = pulled / size[:, None, None]
            scale[some] = np.minimum(scale[some] + np.log(size), 300)
        at = np.flatnonzero(lags == k)
        if len(at):
            wide = v[some].astype(np.float64)
            squared = np.linalg.eigvalsh(wide @ wide.swapaxes(1, 2))[:, ::-1]
            values = np.sqrt(np.maximum(squared, 0)) * np.exp(scale[some])[:, None]
            found[at[0], some] = values
            if values[:, 0].max() < NOTHING:
                return found[: at[0] + 1]
    return found


def _swapped(steps: Steps, rows: Ints, lags: Ints) -> Floats:
    """Return what is left [K] of the difference to a state taken from elsewhere in the data."""
    lengths = steps.layer.lengths
    rng = np.random.default_rng(0)
    rows = np.repeat(rows, 2)
    start = 1 + np.arange(len(rows)) * lengths[rows] // (3 * len(rows))
    start = np.minimum(start, lengths[rows] - 1)
    filled = np.flatnonzero(lengths)
    other = rng.choice(filled, len(rows))
    state = steps.after(other, rng.integers(0, lengths[other]))
    left = np.full((len(lags), len(rows)), np.nan)
    for k in range(int(lags[-1]) + 1):
        some = np.flatnonzero(start + k <= lengths[rows])
        if not len(some):
            break
        own = steps.before(rows[some], np.minimum(start[some] + k, lengths[rows[some]]))
        if k in lags:
            gaps = (np.linalg.norm(a[some] - b, axis=1) for a, b in zip(state, own))
            left[np.flatnonzero(lags == k)[0], some] = np.linalg.norm([*gaps], axis=0)
        some = some[start[some] + k < lengths[rows[some]]]
        moved = steps.step(rows[some], start[some] + k, type(state)(*(s[some] for s in state)))
        for whole, part in zip(state, moved):
            whole[some] = part
    # Each lag is compared with the first difference of the same pairs.
    begun = np.where(np.isnan(left), np.nan, left[0])
    size, first = np.nansum(np.square(left), axis=1), np.nansum(np.square(begun), axis=1)
    return np.asarray(np.sqrt(np.divide(size, first, out=np.zeros(len(lags)), where=first > 0)))


def _along_gates(steps: Steps, rows: Ints, ends: Ints, lags: Ints) -> Floats | None:
    """Return the largest unit's product of keeping gates [K]: the path along c, or z of a GRU."""
    kept = keeping(steps.layer)
    if kept is None:
        return None
    product = np.ones((len(rows), kept.shape[-1]))
    found = np.full((len(lags), len(rows)), np.nan)
    for k in range(int(lags[-1]) + 1):
        some = np.flatnonzero(ends >= k)
        if k:
            product[some] *= kept[rows[some], ends[some] - (k - 1)]
        if k in lags:
            found[np.flatnonzero(lags == k)[0], some] = product[some].max(axis=1)
    return _root_mean_square(found)


def _as_elman(steps: Steps, rows: Ints, ends: Ints, lags: Ints) -> Floats | None:
    """Return the product [K] that the candidate alone would have: diag(1 - g^2) W_hg."""
    cell = steps.layer.cell
    w = block(cell, steps.params["w_h"], candidate_name(cell))
    if not cell.keep_rows or w.shape[0] != w.shape[1]:
        return None
    written = candidate(steps.layer)

    def pull(some: Ints, t: Ints, v: Floats) -> Floats:
        slope = 1 - np.square(written[rows[some], t]).astype(steps.kind)
        return np.asarray(through(v * slope[:, None], w))

    drawn = np.random.default_rng(0).standard_normal((min(len(w), PROBES), len(w)))
    values = _singular(_orthonormal(drawn), ends, lags, steps.kind, pull)
    found = np.zeros(len(lags))
    found[: len(values)] = _root_mean_square(values[..., 0])
    return found
