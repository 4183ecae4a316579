"""Rows that hold several episodes: where a flag says so, the state begins anew. HS137."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.carrying import carried, exchanged, parts
from hiddenstate.diagnose.measures.compare import Base, differences, steady
from hiddenstate.diagnose.subject.facts import Mask
from hiddenstate.diagnose.subject.layout import called, every_leaf
from hiddenstate.diagnose.subject.nested import mapped

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

ENDS = re.compile(
    r"(.*_)?(dones?|resets?|terminals?|terminated|terminations?|is_first|firsts?|starts?|begins?)",
    re.IGNORECASE,
)
"""Names of flags that are set where an episode ends or begins."""
GOES_ON = re.compile(r"(.*_)?(not|non)_?(dones?|terminals?)|continues?|alive", re.IGNORECASE)
"""Names of flags that are set where it goes on."""
PARTLY = 0.9
"""What of the past is left where the flag is set, as a share of what is without: partly reset."""
NEAR = 2
"""Steps before the flag that a convolution may still read after it."""


@rule(
    "HS137",
    "episode-not-reset",
    Severity.ERROR,
    asks="Does the state begin anew where an episode does?",
    because="A batch of steps from a simulator holds the end of one episode and the beginning of "
    "the next. A state that goes on tells the new one what happened in the old, which is so in "
    "training alone.",
    remedy="Multiply every part of the state by 1 - done, row by row, before the step that begins "
    "the episode: h and c, and the states of all layers. Mind whether the flag stands at an "
    "episode's last step or at the first one of the next.",
    limits={"share of the output": 1e-4},
)
def episode_not_reset(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """One flag is set in every row; steps well before it are exchanged."""
    few = seen.few
    flags = _flags(seen)
    if not flags:
        raise Skip("no argument [B, T] of zeros and ones is called done or reset")
    if not any(each.time_axis is not None and each.batch_axis is not None for each in few.outputs):
        raise Skip("no output has rows and steps")
    steady(seen)
    steps = np.arange(few.time)
    # In the shortest row there have to be steps after it.
    at = int(few.ends.min(initial=few.time)) // 2
    if at <= NEAR or at + 2 > few.time:
        raise Skip("the rows are too short")
    for name, inverse in flags.items():
        whole = _changed(seen, name, inverse, np.zeros(few.time, bool), at)
        if not whole:
            opposite = _changed(seen, name, inverse, np.ones(few.time, bool), at)
            if opposite:
                yield rule.finding(
                    name,
                    f"Where {name} says that an episode goes on, nothing before step {at} reaches "
                    f"the steps after it; where {name} is the other way round, it does: the flag "
                    "is taken for its opposite.",
                    {"difference": opposite},
                )
            continue
        left = _changed(seen, name, inverse, steps == at, at)
        if not left:
            continue
        one, other = (
            few.run(_with(seen, name, inverse, each)) for each in (steps == at, steps < 0)
        )
        read = any(each.counts for each in differences(few, _base(seen, one), other))
        if read and left > PARTLY * whole and not _resets_a_part(seen, name, inverse):
            yield rule.finding(
                name,
                f"{name} is read, and the state goes on where it is set: steps before it change "
                f"what comes after by {left:.3g}, without the flag by {whole:.3g}.",
                {"difference": left, "without the flag": whole},
                severity=Severity.NOTE,
            )
            continue
        said = "a part of the state goes on" if read else "it changes nothing"
        yield rule.finding(
            name,
            f"Where {name} is set {said}: other steps before step {at - NEAR} change what comes "
            f"after step {at}, at which it is set, by {left:.3g}; without the flag by {whole:.3g}.",
            {"difference": left, "without the flag": whole},
        )


def _flags(seen: Examination) -> dict[str, bool]:
    """Return the names of the flags, and whether they are set where an episode goes on."""
    found = dict[str, bool]()
    for name, leaf in every_leaf(seen.few.arguments):
        if (
            name == seen.few.layout.main
            or not isinstance(leaf, Tensor)
            or _steps(seen, leaf) is None
        ):
            continue
        if not bool(((leaf == 0) | (leaf == 1)).all()):
            continue
        if called(name, GOES_ON):
            found[name] = True
        elif called(name, ENDS):
            found[name] = False
    return found


def _steps(seen: Examination, leaf: Tensor) -> int | None:
    """Return the axis of steps of one number for each row and step; None for other arrays."""
    few = seen.few
    place = few.layout.places[few.layout.main]
    assert place.batch is not None
    assert place.time is not None
    # Beside features of their own, [B, D, T], there is no array [B, T].
    axes = (0, 1) if place.batch < place.time else (1, 0)
    if leaf.ndim < 2 or leaf.numel() != few.batch * few.time:
        return None
    fits = (leaf.shape[axes[0]], leaf.shape[axes[1]]) == (few.batch, few.time)
    return axes[1] if fits else None


def _with(
    seen: Examination, flag: str, inverse: bool, where: Mask, given: Any = None
) -> dict[str, Any]:
    """Return arguments with the flag set at the steps `where` [T], and nowhere else."""
    marks = torch.as_tensor(where != inverse)

    def change(name: str, leaf: Any) -> Any:
        if name != flag:
            return leaf
        shape = [1] * leaf.ndim
        shape[_steps(seen, leaf) or 0] = -1
        return marks.to(leaf.dtype).reshape(shape).expand_as(leaf).clone()

    arguments = seen.few.arguments if given is None else given
    return {name: mapped(change, value, name) for name, value in arguments.items()}


def _changed(seen: Examination, flag: str, inverse: bool, where: Mask, at: int) -> float:
    """Return what other steps well before `at` change after it, 0.0 where that is rounding."""
    few, steps = seen.few, np.arange(seen.few.time)
    given = _with(seen, flag, inverse, where)
    early = few.changed(few.valid & (steps < at - NEAR + 1), seen.rng("episode"), given)
    after = few.run(_with(seen, flag, inverse, where, early))
    found = differences(few, _base(seen, few.run(given)), after, few.valid & (steps > at))
    return max(
        (each.largest for each in found if each.by_step is not None and each.counts), default=0.0
    )


def _resets_a_part(seen: Examination, flag: str, inverse: bool) -> bool:
    """Return whether a flag at the first step shuts out some parts of the state and others not."""
    try:
        way = carried(seen)
    except Skip:
        return False
    few, steps = seen.few, np.arange(seen.few.time)
    state = way.take(few.raw())
    given = _with(seen, flag, inverse, steps == 0)
    before = _base(seen, few.run({**given, **state}))
    through = [
        any(
            each.counts
            for each in differences(few, before, few.run({**given, **exchanged(state, part)}))
            if each.by_step is not None
        )
        for part in parts(state, few.batch)
    ]
    return any(through) and not all(through)


def _base(seen: Examination, outputs: Any) -> Base:
    known = steady(seen)
    return Base(outputs, known.limits, known.scales)
