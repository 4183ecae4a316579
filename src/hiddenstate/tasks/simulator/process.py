"""A stochastic process with a finite latent state, and exact beliefs about that state.

A case has facts that never change (one of F combinations) and a stage (one of S) that moves with
every event. Nobody sees either: only the activities. In stage s with facts f the next action is
activity a and the next stage s' with probability P(a, s' | s, f). Given the activities so far, the
belief over (stage, facts) follows from Bayes' rule one event at a time (forward filtering: Rabiner,
Proc. IEEE 77(2), 1989, equations 19 and 20), and the next action's probability from the belief.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
class Belief:
    """What the events so far say about n cases, as K cells that are not zero.

    trace: which traces [n];  owner: place in `trace` of each cell, increasing [K]
    facts: the cell's combination of facts [K];  mass: probability of each stage [S, K]
    Over the cells of one owner the mass sums to 1; an impossible history has no cells.
    """

    trace: Codes
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
    def emissions(self) -> Floats:
        """Probability of each action by stage and facts [S, F, V]; zero in the stage after."""
        table = np.zeros((self.stages, len(self.prior), len(self.actions)))
        for move in self.moves:
            table[move.stage, :, move.action] += move.probability
        return table

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
        moves = [move for move in self.moves if move.action != self.end]
        everywhere = np.arange(len(self.prior))
        here = self.start
        total = np.zeros_like(here)
        while here.sum() > LEFT_OVER:
            here = _advance(here, everywhere, moves)
            total += here
        belief: Floats = total / total.sum()
        return belief

    @cached_property
    def _moves_by_action(self) -> Mapping[int, list[Move]]:
        return {a: [m for m in self.moves if m.action == a] for a in range(len(self.actions))}

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
        before = self.start if start is None else start
        trace = np.argsort([-len(each) for each in codes], kind="stable")
        lengths = np.array([len(codes[i]) for i in trace])
        possible = np.flatnonzero(before.any(axis=0))
        owner = np.repeat(np.arange(len(codes)), len(possible))
        facts = np.tile(possible, len(codes))
        mass = np.tile(before[:, possible], len(codes))
        for step in range(int(lengths.max(initial=0))):
            running = int((lengths > step).sum())
            now = np.array([codes[i][step] for i in trace[:running]])
            cells = int(np.searchsorted(owner, running))
            owner, facts, old = owner[:cells], facts[:cells], mass[:, :cells]
            mass = np.zeros_like(old)
            for action in np.unique(now):
                own = np.flatnonzero(now[owner] == action)
                moves = self._moves_by_action[int(action)]
                mass[:, own] = _advance(old[:, own], facts[own], moves)
            left = mass.any(axis=0)
            owner, facts, mass = owner[left], facts[left], mass[:, left]
            mass /= np.bincount(owner, mass.sum(axis=0), running)[owner]
            yield Belief(trace[:running], owner, facts, mass)

    def next_action(self, belief: Belief) -> Floats:
        """Return the probability of each next action [n, V]; zeros after an impossible history."""
        total = np.zeros((len(belief.trace), len(self.actions)))
        for stage, mass in enumerate(belief.mass):
            cells = np.flatnonzero(mass)
            if len(cells):
                chances = self.emissions[stage][belief.facts[cells]] * mass[cells, None]
                owners, first = np.unique(belief.owner[cells], return_index=True)
                total[owners] += np.add.reduceat(chances, first, axis=0)
        return total


def _advance(mass: Floats, facts: Codes, moves: Sequence[Move]) -> Floats:
    """Move the masses [S, K] of cells with these facts [K] by every one of `moves`."""
    after = np.zeros_like(mass)
    for move in moves:
        after[move.to] += mass[move.stage] * move.probability[facts]
    return after
