"""A stochastic process with a finite latent state, and exact beliefs about that state.

A case has facts that never change (one of F combinations) and a stage (one of S) that moves with
every event. Nobody sees either: only the activities. In stage s with facts f the next action is
activity a and the next stage s' with probability P(a, s' | s, f). Given the activities so far, the
belief over (stage, facts) follows from Bayes' rule one event at a time (forward filtering: Rabiner,
Proc. IEEE 77(2), 1989, equations 19 and 20), and the next action's probability from the belief.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

LEFT_OVER = 1e-12


@dataclass(frozen=True, eq=False)
class Move:
    """From one stage to another by one action, with a probability for each F."""

    stage: int
    action: int
    to: int
    probability: Floats


@dataclass(frozen=True, eq=False)
class Term:
    """All moves of one action whose probabilities depend on the facts in the same way.

    pairs: (stage, next stage, scale);  weight: [F]; scale * weight is the move's probability
    """

    action: int
    pairs: tuple[tuple[int, int, float], ...]
    weight: Floats


@dataclass(frozen=True, eq=False)
class Belief:
    """What the events so far say about n cases, as K cells that are not zero.

    Cases with the same events so far share one belief; there are G of them.

    trace: which traces [n];  group: the belief of each, below G [n]
    owner: the belief that each cell belongs to, increasing [K]
    facts: the cell's combination of facts [K];  mass: probability of each stage [S, K]
    Over the cells of one owner the mass sums to 1; an impossible history has no cells.
    """

    trace: Codes
    group: Codes
    owner: Codes
    facts: Codes
    mass: Floats


@dataclass(frozen=True, eq=False)
class Process:
    """Facts drawn from `prior` [F], stages 0 (first) to S - 1 (over), and the moves between them.

    actions: names of the V actions; the last one is the end of the case
    """

    actions: tuple[str, ...]
    stages: int
    prior: Floats
    moves: tuple[Move, ...]

    @classmethod
    def build(
        cls,
        prior: Any,
        stages: Sequence[str],
        moves: Sequence[tuple[str, str, str, Any]],
        end: str,
    ) -> Process:
        """Build a process from moves (stage, action, next stage, probability: a number or [F]).

        The last stage is the one after the end.
        """
        names = dict.fromkeys(action for _, action, _, _ in moves if action != end)
        actions = (*names, end)
        action_of = {name: i for i, name in enumerate(actions)}
        stage_of = {name: i for i, name in enumerate(stages)}
        weights = np.asarray(prior, dtype=np.float64)
        numbered = tuple(
            Move(stage_of[s], action_of[a], stage_of[to], np.broadcast_to(p, weights.shape) * 1.0)
            for s, a, to, p in moves
            if np.any(p)
        )
        return cls(actions, len(stages), weights, numbered)

    @property
    def end(self) -> int:
        """The action that is no event: the end of the case."""
        return len(self.actions) - 1

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The moves, put together where the facts weigh alike."""
        pairs: dict[tuple[int, bytes], list[tuple[int, int, float]]] = {}
        for move in self.moves:
            scale = float(move.probability.max())
            weight = (move.probability / scale).tobytes()
            pairs.setdefault((move.action, weight), []).append((move.stage, move.to, scale))
        return tuple(
            Term(action, tuple(alike), np.frombuffer(weight))
            for (action, weight), alike in pairs.items()
        )

    @cached_property
    def start(self) -> Floats:
        """Belief before the first event [S, F]."""
        belief = np.zeros((self.stages, len(self.prior)))
        belief[0] = self.prior
        return belief

    @cached_property
    def midway(self) -> Floats:
        """Belief before an event at a random place that is not the first [S, F].

        The share of their events that infinitely many cases spend in each state.
        """
        terms = [term for term in self.terms if term.action != self.end]
        everywhere = np.arange(len(self.prior))
        here = self.start
        total = np.zeros_like(here)
        while here.sum() > LEFT_OVER:
            here = _advance(here, everywhere, terms)
            total += here
        belief: Floats = total / total.sum()
        return belief

    def sample(self, cases: int, rng: np.random.Generator) -> list[Codes]:
        """Draw the activities of some cases, as indices into `actions`."""
        facts = rng.choice(len(self.prior), size=cases, p=self.prior)
        stage = np.zeros(cases, dtype=np.int64)
        traces: list[list[int]] = [[] for _ in range(cases)]
        running = np.arange(cases)
        while len(running):
            chance, now = rng.random(len(running)), stage[running]
            for s in np.unique(now):
                moves = [move for move in self.moves if move.stage == s]
                rows = running[now == s]
                edges = np.cumsum([move.probability[facts[rows]] for move in moves], axis=0)
                drawn = (chance[now == s] >= edges[:-1]).sum(axis=0)
                stage[rows] = np.array([move.to for move in moves])[drawn]
                for row, which in zip(rows.tolist(), drawn.tolist()):
                    traces[row].append(moves[which].action)
            running = running[stage[running] != self.stages - 1]
        return [np.array(trace[:-1], dtype=np.int64) for trace in traces]

    def beliefs(self, codes: Sequence[Codes], start: Floats | None = None) -> Iterator[Belief]:
        """Yield the belief after events 1, 2, ... of the traces that have so many.

        `start` [S, F] is the belief before the first event of each trace.
        """
        mass = self.start if start is None else start
        facts = np.flatnonzero(mass.any(axis=0))
        mass, owner = mass[:, facts], np.zeros(len(facts), dtype=np.int64)
        trace = np.argsort([-len(each) for each in codes], kind="stable")
        lengths = np.array([len(codes[i]) for i in trace])
        group = np.zeros(len(codes), dtype=np.int64)
        for step in range(int(lengths.max(initial=0))):
            running = int((lengths > step).sum())
            now = np.array([codes[i][step] for i in trace[:running]])
            pairs, group = np.unique(group[:running] * len(self.actions) + now, return_inverse=True)
            parent, action = np.divmod(pairs, len(self.actions))
            first, behind = np.searchsorted(owner, parent), np.searchsorted(owner, parent + 1)
            sizes = behind - first
            owner = np.repeat(np.arange(len(pairs)), sizes)
            own = np.arange(len(owner)) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
            facts, old = facts[own], mass[:, own]
            mass = np.zeros_like(old)
            for a in np.unique(action):
                cells = np.flatnonzero(action[owner] == a)
                terms = [term for term in self.terms if term.action == a]
                mass[:, cells] = _advance(old[:, cells], facts[cells], terms)
            left = mass.any(axis=0)
            owner, facts, mass = owner[left], facts[left], mass[:, left]
            mass /= np.bincount(owner, mass.sum(axis=0), len(pairs))[owner]
            yield Belief(trace[:running], group, owner, facts, mass)

    def next_action(self, belief: Belief) -> Floats:
        """Return the probability of each next action [n, V]; zeros after an impossible history."""
        total = np.zeros((int(belief.group.max()) + 1, len(self.actions)))
        owners, first = np.unique(belief.owner, return_index=True)
        if len(owners):
            for term in self.terms:
                leaving = np.zeros(len(belief.owner))
                for stage, _, scale in term.pairs:
                    leaving += scale * belief.mass[stage]
                leaving *= term.weight[belief.facts]
                total[owners, term.action] += np.add.reduceat(leaving, first)
        return total[belief.group]


def _advance(mass: Floats, facts: Codes, terms: Sequence[Term]) -> Floats:
    """Move the masses [S, K] of cells with these facts [K] by every one of `terms`."""
    after = np.zeros_like(mass)
    for term in terms:
        weighed = mass * term.weight[facts]
        for stage, to, scale in term.pairs:
            after[to] += scale * weighed[stage]
    return after
