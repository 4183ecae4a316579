"""The axis of rows: every layer means the same one, and results have it. HS125."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.asked import asked, asked_across

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS125",
    "row-axis",
    Severity.ERROR,
    asks="Do the layers and the results have their rows where the batch has them?",
    because="The layers nn.RNN, nn.LSTM and nn.GRU read [T, B, D] unless told otherwise. Given "
    "[B, T, D] they run along the rows, from one stranger to the next, and no error is raised; "
    "output[-1] of a batch-first layer is then the last row, not the last step.",
    remedy="Build the layer with batch_first=True or give it x.transpose(0, 1); take the last "
    "step along the axis of steps (output[:, -1] where rows come first). Note that batch_first "
    "does not reach the states, which stay [layers, B, H].",
)
def row_axis(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """A row is added: steps of a layer may not grow, an axis of the result has to."""
    subject = seen.subject
    if subject.fixed_rows is not None:
        raise Skip(f"no other number of rows can be run: {subject.fixed_rows}")
    for name in subject.astray:
        yield rule.finding(
            name or "module",
            f"With one row more, {name or 'the layer'} runs over one step more: it takes the "
            f"{subject.batch} rows of the batch for its steps.",
            {"rows": subject.batch},
        )
    yield from _asked_of_the_next_row(seen, rule)
    shaped = [
        (each, array)
        for each, array in zip(subject.outputs, subject.known)
        if array.is_floating_point() and array.ndim > 0
    ]
    if not shaped or subject.astray:
        return
    if all(each.batch_axis is None for each, _ in shaped):
        names = " and ".join(each.name for each, _ in shaped)
        output, array = shaped[0]
        follows = (
            "it grows with the steps instead"
            if output.time_axis is not None or output.stretches
            else "it stays as it is"
        )
        yield rule.finding(
            output.name,
            f"No axis of {names} grows when a row is added to the batch of {subject.batch}: "
            f"{output.name} of shape {list(array.shape)} has no axis of rows, {follows}.",
            {"rows": subject.batch},
        )


def _asked_of_the_next_row(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Yield where the loss asks for what stands in the next row: its rows are steps."""
    try:
        along, across = asked(seen), asked_across(seen)
    except Skip:
        return
    for each in across:
        if each.ahead > 0 and not any(other.output.name == each.output.name for other in along):
            yield rule.finding(
                f"loss, from {each.output.name}",
                f"The loss asks {each.output.name} for {each.told} of the next row, not of the "
                f"next step: what the layers take for {seen.subject.batch} rows are the steps.",
                {"rows": seen.subject.batch},
            )
            return
