"""Rows of length 0. HS105."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.checks.padding import steps_of
from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import Base, differences, steady, worst
from hiddenstate.diagnose.subject.calling import Refused

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS105",
    "row-without-steps",
    Severity.ERROR,
    asks="Does a row without a single step give a result of its own, and leave the others alone?",
    because="A new case, an empty message or a filter gives rows without steps sooner or later. A "
    "mean over none of the steps is 0 / 0, the step before the first is the last one of the "
    "padding, and one NaN in a batch is a NaN in every weight after the next update.",
    remedy="Divide by lengths.clamp(min=1), mask with the lowest finite number where a whole row "
    "can be masked, and give the first state (zeros, or a learned one) as the last state of an "
    "empty row; or refuse such rows before they reach the module.",
)
def row_without_steps(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """One row is told to have length 0; where the batch has none itself, it is a note."""
    few = seen.few
    if few.padded != "told":
        raise Skip("no lengths were given")
    if few.packed:
        raise Skip("a PackedSequence cannot hold a row without steps")
    known = steady(seen)
    lengths = few.ends.copy()
    given = bool((lengths == 0).any())
    # The last row: where rows have to be sorted by length, they stay so.
    empty = int(np.flatnonzero(lengths == 0)[0]) if given else few.batch - 1
    lengths[empty] = 0
    severity = None if given else Severity.NOTE
    arguments = few.with_lengths(lengths)
    own = steps_of(lengths, few.time)
    try:
        after = few.run(arguments)
    except Refused as error:
        yield rule.finding("lengths", f"With a length of 0, {error}.", severity=Severity.NOTE)
        return
    others = np.delete(np.arange(few.batch), empty)
    broken = [
        output.name
        for output, array in zip(few.outputs, after)
        if output.batch_axis is not None
        and output.time_axis is None
        and array.is_floating_point()
        and bool(array.select(output.batch_axis, empty).isnan().any())
    ]
    if broken:
        yield rule.finding(
            broken[0],
            f"Row {empty}, told to have length 0, gives NaN in {' and '.join(broken)}.",
            {"row": empty},
            severity=severity,
        )
        return
    if not given:
        found = worst([each.only(others) for each in differences(few, known, after, own)])
        if found is not None:
            yield rule.finding(
                found.output.name,
                f"With row {empty} told to have length 0, {found.output.name} of row "
                f"{found.rows[0]} changes by {found.largest:.3g}.",
                {"row": found.rows[0], "difference": found.largest},
                severity=severity,
            )
            return
    before = Base(after, known.limits, known.scales)
    content = few.changed(
        steps_of(np.where(lengths == 0, few.time, 0), few.time), seen.rng(rule.code)
    )
    again = few.run(few.with_lengths(lengths, content))
    found = worst([each.only([empty]) for each in differences(few, before, again, own)])
    if found is not None:
        yield rule.finding(
            found.output.name,
            f"Row {empty} has length 0 and still gives what stands in its padding: with other "
            f"content there, {found.output.name} changes by {found.largest:.3g}, "
            f"{found.share:.2%} of its largest value.",
            {"row": empty, "difference": found.largest, "share": found.share},
            severity=severity,
        )
