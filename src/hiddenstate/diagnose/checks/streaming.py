"""A state that goes out and comes back: chunks give the whole, and all is used. HS131, HS132."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.carrying import Carried, carried, exchanged, parts
from hiddenstate.diagnose.measures.compare import Base, Difference, base, differences, steady, worst
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.nested import tensors
from hiddenstate.diagnose.subject.subject import Subject, flat

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

SHARE = {"share of the output": 1e-4}
STREAMED = 5
"""Steps that are given one by one."""


@rule(
    "HS131",
    "chunks-differ",
    Severity.ERROR,
    asks="Does a row in chunks, with the state handed on, give the same as the whole row?",
    because="Streaming, truncated backpropagation and long rows all rest on it. Where it does not "
    "hold, the model that is used is not the one that was trained.",
    remedy="Return the state after the row's last step, of every layer, and begin from the state "
    "given, not from zeros, in every layer and in every branch (a parallel form too); let the "
    "state hold what else reaches back over the boundary, such as the inputs that a convolution "
    "still needs.",
    limits=SHARE,
)
def chunks_differ(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Whole rows are compared with two halves, and their first steps with single steps."""
    if seen.subject.bidirectional:
        raise Skip("a layer reads from the end, so a row cannot be given in chunks")
    way, few = carried(seen), seen.few
    steady(seen)
    if few.fixed_steps is not None:
        raise Skip(f"no other number of steps can be run: {few.fixed_steps}")
    rows, steps = _whole_rows(few)
    if steps < 2:
        raise Skip("the rows have only one step")
    arguments = few.steps(steps, arguments=few.rows(rows))
    part = few.on(arguments, rows=rows, steps=steps)
    some = min(STREAMED, steps)
    for cuts in ([0, steps // 2, steps], [0, *range(1, some + 1)]):
        before = _kept(seen, part.run(part.steps(cuts[-1])))
        # A flag [B] may say that rows begin anew with this call: later chunks do not.
        flags = _flags(part)
        for later in ({}, flags) if flags else ({},):
            chunks, state = _in_chunks(part, way, cuts, later)
            joined = [_joined(output, each) for output, each in zip(part.outputs, zip(*chunks))]
            where = np.ones((part.batch, cuts[-1]), bool)
            found = worst(_of_steps(differences(part, before, joined, where)))
            final = worst(_of_state(part, before, chunks[-1], state))
            if found is None and final is None:
                break
        else:
            said = "in two chunks" if len(cuts) == 3 else f"step by step, for {some} steps"
            yield from _told(rule, said, cuts, found, final)
            return


@rule(
    "HS132",
    "state-ignored",
    Severity.ERROR,
    asks="Does every part of a state that is given change what comes out?",
    because="A state that is taken and not read looks like memory across calls and is none: each "
    "call begins anew, and nobody notices.",
    remedy="Hand the state to the recurrent layer (lstm(x, state)), all of it: h and c, and every "
    "layer's part; use it in the parallel form too.",
    limits=SHARE,
)
def state_ignored(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Each part of the state is given other values: 0.5 less its own."""
    way, few, known = carried(seen), seen.few, steady(seen)
    state = way.take(few.raw())
    arguments = {**few.arguments, **state}
    started = Base(few.run(arguments), known.limits, known.scales)
    deaf: list[str] = []
    count = 0
    for part in parts(state, few.batch):
        count += 1
        turned = exchanged(state, part)
        after = few.run({**few.arguments, **turned})
        if not any(each.counts for each in differences(few, started, after)):
            deaf.append(part.told)
    if not deaf:
        return
    whole = len(deaf) == count
    yield rule.finding(
        ", ".join(way.names) if whole else deaf[0],
        f"Other values in {'the state' if whole else ' and '.join(deaf)} change no output: it is "
        "not read.",
        {"parts": count, "parts without effect": len(deaf)},
    )


def _whole_rows(subject: Subject) -> tuple[list[int], int]:
    """Return rows without padding and the number of their steps."""
    longest = int(subject.ends.max(initial=0))
    rows: list[int] = np.flatnonzero(subject.ends == longest).tolist()
    return rows, longest


def _kept(seen: Examination, outputs: tuple[Tensor, ...]) -> Base:
    known = base(seen)
    return Base(outputs, known.limits, known.scales)


def _flags(part: Subject) -> dict[str, Tensor]:
    """Return the arguments that are one truth for each row, none of them set."""
    return {
        name: torch.zeros_like(value)
        for name, value in part.arguments.items()
        if isinstance(value, Tensor) and value.dtype == torch.bool and value.shape == (part.batch,)
    }


def _in_chunks(
    part: Subject, way: Carried, cuts: list[int], later: Mapping[str, Tensor]
) -> tuple[list[tuple[Tensor, ...]], dict[str, Any]]:
    """Return each chunk's outputs and the state after the last.

    later: arguments of all chunks but the first
    """
    state: dict[str, Any] = {}
    found = []
    for start, end in pairwise(cuts):
        raw = part.raw({**part.steps(start, end), **state, **(later if start else {})})
        state = way.take(raw)
        found.append(flat(raw))
    return found, state


def _joined(output: Output, chunks: tuple[Tensor, ...]) -> Tensor:
    if output.time_axis is None:
        return chunks[-1]
    return torch.cat(chunks, output.time_axis)


def _of_steps(found: list[Difference]) -> list[Difference]:
    return [each for each in found if each.by_step is not None]


def _of_state(
    part: Subject, before: Base, last: tuple[Tensor, ...], state: dict[str, Any]
) -> list[Difference]:
    """Return how the final states differ: outputs without steps that are parts of the state."""
    held = {id(each) for value in state.values() for _, each in tensors(value)}
    names = {output.name for output, each in zip(part.outputs, last) if id(each) in held}
    where = np.ones((part.batch, part.time), bool)
    return [
        each
        for each in differences(part, before, last, where)
        if each.by_step is None and each.output.name in names
    ]


def _told(
    rule: Rule,
    said: str,
    cuts: list[int],
    found: Difference | None,
    final: Difference | None,
) -> Iterator[Finding]:
    picture = None
    if found is not None:
        assert found.by_step is not None
        profile = found.by_step.max(0)
        first = int(np.flatnonzero(profile > found.limit)[0])
        measured = (
            f"Given {said}, {found.output.name} differs from that of the whole row from step "
            f"{first} on, by up to {found.largest:.3g}, {found.share:.2%} of its largest value."
        )
        values = {"difference": found.largest, "share": found.share, "step": float(first)}
        picture = Picture(
            "lines",
            f"Chunks that begin at {', '.join(map(str, cuts[1:-1]))}",
            "step",
            f"largest change of {found.output.name}",
            {"against the whole row": profile},
        )
        where = found.output.name
        if final is None:
            measured += " The last state is the same."
    else:
        assert final is not None
        measured = (
            f"Given {said}, the last state {final.output.name} differs from that of the whole row "
            f"by {final.largest:.3g}, {final.share:.2%} of its largest value."
        )
        values = {"difference": final.largest, "share": final.share}
        where = final.output.name
    yield rule.finding(where, measured, values, picture=picture)
