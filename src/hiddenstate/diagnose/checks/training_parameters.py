"""What a training leaves as it was: HS508, HS509."""

from __future__ import annotations

from collections.abc import Iterator

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip
from hiddenstate.diagnose.watching.rules import (
    listed,
    of_training,
)
from hiddenstate.diagnose.watching.training import Training

BYTES = {*range(127, 131), *range(255, 265)}
"""Sizes of tables for all bytes or all of ASCII, and a few symbols beside them."""


@of_training(
    "HS508",
    "embedding-rows-never-trained",
    Severity.WARNING,
    asks="Has training read every row of the embeddings?",
    because="A row that no training example reads keeps its random start: a symbol that meets it "
    "in use is answered by noise, and the table is larger than need be.",
    remedy="Build the vocabulary from the training data and map everything else to one unknown "
    "symbol that training sees; check that symbols are coded from 0 without gaps.",
    limits={"share_unread": 0.25, "rows_unread": 3, "still_growing": 0.02},
)
def embedding_rows(training: Training, rule: Rule) -> Iterator[Finding]:
    """Rows without a reader, once no new ones are being read."""
    if training.embeddings is None:
        raise Skip("the rows that training has read were not recorded")
    if not training.embeddings:
        raise Skip("no embedding is trained")
    for name, rows in training.embeddings.items():
        left = rows.rows - rows.read
        if rows.read - rows.earlier > rule.limits["still_growing"] * rows.rows:
            continue
        if left >= max(rule.limits["rows_unread"], rule.limits["share_unread"] * rows.rows):
            yield rule.finding(
                name,
                f"{left:,} of the {rows.rows:,} rows of {name} were never read in "
                f"{training.steps:,} steps, and in the later half hardly a new one was "
                f"({rows.read - rows.earlier}).",
                {"rows": rows.rows, "unread": left, "share": left / rows.rows},
                # A table of all bytes, or one that was given its vectors, is as large as it is.
                severity=None if rows.drawn and rows.rows not in BYTES else Severity.NOTE,
            )


@of_training(
    "HS509",
    "parameters-never-move",
    Severity.ERROR,
    asks="Does every parameter that can be trained move?",
    because="What does not move keeps its random start: that part of the model learns nothing, "
    "and says nothing about it.",
    remedy="Give all parameters to the optimiser after the last of them is made; let the loss "
    "reach them (no detach, .data, no_grad or numpy on the way); set requires_grad to False where "
    "standing still is meant.",
    limits={"windows": 3},
)
def never_move(training: Training, rule: Rule) -> Iterator[Finding]:
    """Parameters that are the same to the last bit, by the reason."""
    if training.motionless is None:
        raise Skip("the movement of the parameters was not recorded")
    if len(training.windows) < rule.limits["windows"]:
        raise Skip(f"fewer than {rule.limits['windows']:.0f} windows were seen")
    reasons: dict[str, list[str]] = {}
    for name, reason in training.motionless.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield rule.finding(
            listed(names),
            f"{listed(names)} did not change at all in {training.steps:,} steps: {reason}.",
            {"parameters": len(names)},
        )
    for name in training.frozen:
        yield rule.finding(
            name,
            f"{name} does not ask for a gradient, and its vectors are those that were drawn for it "
            "at random: what stands for each symbol is never learnt.",
            severity=Severity.WARNING,
        )
