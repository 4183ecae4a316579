"""The way through a row: what stands early has to reach what comes late. HS134, HS135, HS141."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.asked import slopes
from hiddenstate.diagnose.measures.compare import Base, base, differences, steady
from hiddenstate.diagnose.measures.reach import Reach, alike, reaches

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

SUDDEN = 1e-12
"""A gradient that is still so large, as a share of the largest, and exactly 0 one step before: cut.

One that fades passes through all sizes on its way to 0."""
CUT = {"last gradient before the cut, share of the largest": SUDDEN}


class Cut(NamedTuple):
    """No gradient comes from before this step, in any row; crosses: an exchange does."""

    reach: Reach
    step: int
    crosses: bool
    change: float


@rule(
    "HS134",
    "state-reset",
    Severity.ERROR,
    asks="Does the state go through the whole row?",
    because="Where the state begins anew in the middle of a row, nothing before that step can be "
    "remembered, however large the memory is.",
    remedy="Hand the state from one step, chunk or window to the next; reset it only where a new "
    "sequence begins, and only the rows for which one does.",
    limits=CUT,
)
def state_reset(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """No gradient and no exchange of earlier steps reaches the result from before some step."""
    for cut in _cuts(seen):
        if not cut.crosses and cut.step < cut.reach.end:
            yield rule.finding(
                cut.reach.output.name,
                f"{_name(cut)} does not depend on the steps before step {cut.step} of "
                f"{alike(seen).time}, not even when all of them are exchanged.",
                {"step": cut.step},
                picture=_picture(cut),
            )


@rule(
    "HS135",
    "state-detached",
    Severity.WARNING,
    asks="Does the gradient go through the whole row?",
    because="Where the state is detached, what stands before changes the result, but the model "
    "cannot learn from it: no error flows back past that step.",
    remedy="Detach between batches or chunks of a long row, not inside the steps that are learned "
    "from; take .detach(), .data, .item() and no_grad out of the loop over steps.",
    limits=CUT,
)
def state_detached(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """An exchange of earlier steps reaches the result, their gradient is exactly 0."""
    for cut in _cuts(seen):
        if cut.crosses:
            yield rule.finding(
                cut.reach.output.name,
                f"{_name(cut)} changes by {cut.change:.3g} when the steps before step {cut.step} "
                "are exchanged, but its gradient there is exactly 0: it is cut off at step "
                f"{cut.step} of {alike(seen).time}.",
                {"step": cut.step, "difference": cut.change},
                picture=_picture(cut),
            )


@rule(
    "HS141",
    "no-memory",
    Severity.ERROR,
    asks="Does anything before the last step reach the result?",
    because="A recurrent layer whose result depends on one step is a plain layer with more "
    "weights: nothing is remembered.",
    remedy="Hand each step's state to the next (state = cell(x_t, state)); give the layer all "
    "steps at once, with the axis of steps where it reads them.",
    limits=CUT,
)
def no_memory(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """All steps but the last are exchanged."""
    cuts = _cuts(seen)
    # Features that are given out beside what is made of their order need no memory.
    beside = _asked_for(seen) - {each.reach.output.name for each in cuts}
    for cut in cuts:
        if not cut.crosses and cut.step == cut.reach.end:
            yield rule.finding(
                cut.reach.output.name,
                f"{_name(cut)} depends on step {cut.step} alone: the steps before it can all be "
                "exchanged.",
                {"steps without effect": cut.step},
                severity=Severity.NOTE if beside else None,
                picture=_picture(cut),
            )


def _asked_for(seen: Examination) -> set[str]:
    """Return the outputs with steps that the loss asks for; without a loss, all of them."""
    try:
        told = set(slopes(seen, seen.subject.raw(seed=seen.seed)))
    except Skip:
        told = {each.name for each in seen.subject.outputs}
    return told & {each.output.name for each in reaches(seen) if each.output.time_axis is not None}


def _cuts(seen: Examination) -> list[Cut]:
    return seen.known("cuts", lambda: _find(seen))


def _find(seen: Examination) -> list[Cut]:
    part = alike(seen)
    steady(seen)
    if not part.names():
        raise Skip("no recurrent layer is known in it")
    if part.astray:
        raise Skip("a layer takes the rows for steps (HS125)")
    if part.batch < 2:
        raise Skip("one row alone shows no pattern")
    found: dict[str, Cut | None] = {}
    # At the end of what is read from the end, the steps before are still to come.
    ahead = {each.output.name for each in reaches(seen) if each.support[:, each.end + 1 :].any()}
    for reach in reaches(seen):
        name = reach.output.name
        if reach.output.time_axis is not None and (seen.subject.bidirectional or name in ahead):
            continue
        first = reach.support.argmax(1)
        step = int(first[0])
        edge, largest = reach.by_step[:, step], reach.by_step.max(1)
        if step == 0 or (first != step).any() or not (edge > SUDDEN * largest).any():
            found[name] = None
            continue
        known = found.get(name)
        if name in found and known is None:
            continue
        # Of two steps of one output the one that reads more: the other may begin a chunk.
        if known is None or reach.end - step > known.reach.end - known.step:
            found[name] = Cut(reach, step, *_exchanged(seen, reach, step))
    return [each for each in found.values() if each is not None]


def _exchanged(seen: Examination, reach: Reach, step: int) -> tuple[bool, float]:
    """Return whether an exchange of the steps before `step` changes the output there."""
    part, known = alike(seen), base(seen)
    early = np.broadcast_to(np.arange(part.time) < step, (part.batch, part.time))
    before = Base(part.known, known.limits, known.scales)
    after = part.run(part.changed(early, seen.rng("cut")))
    there = np.broadcast_to(np.arange(part.time) == reach.end, (part.batch, part.time))
    for each in differences(part, before, after, there):
        if each.output.name == reach.output.name:
            return each.counts, each.largest
    return False, 0.0


def _name(cut: Cut) -> str:
    output = cut.reach.output
    return output.name if output.time_axis is None else f"{output.name} at step {cut.reach.end}"


def _picture(cut: Cut) -> Picture:
    sizes = cut.reach.by_step.max(0)
    return Picture(
        "lines",
        f"Gradient of {_name(cut)}",
        "step of the input",
        "largest gradient",
        {"all rows": np.where(sizes > 0, sizes, np.nan)},
        log_y=True,
    )
