"""Padding: neither its content nor its amount may change a row's result. HS101 to HS103."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.blame import differing_layer
from hiddenstate.diagnose.measures.compare import Difference, base_of, differences, steady, worst
from hiddenstate.diagnose.subject.calling import Refused
from hiddenstate.diagnose.subject.facts import Mask
from hiddenstate.diagnose.subject.layout import (
    LENGTHS,
    MASK,
    Lengths,
    called,
    every_leaf,
    steps_first,
)
from hiddenstate.diagnose.subject.trailing import ends_of

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination
    from hiddenstate.diagnose.subject.subject import Subject

SHARE = {"share of the output": 1e-4}
SHORT = 2
"""Steps of the rows in which padding weighs most."""


@rule(
    "HS101",
    "padding-content",
    Severity.ERROR,
    asks="Does a row's result stay the same when other content stands in its padding?",
    because="What stands in the padding is an accident of the batch. A result that reads it "
    "changes with the rows that happen to lie beside it, in training and in use.",
    remedy="Give the lengths to the recurrent layer (pack_padded_sequence, or a layer that takes "
    "lengths), read the state at each row's own last step, and mask the padding in every mean, "
    "maximum, softmax or convolution over time.",
    limits=SHARE,
)
def padding_content(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Other content stands in the padding; lengths are as before."""
    few = seen.few
    masked = _padded_before(few)
    if masked is not None:
        yield from _content_before(seen, rule, *masked)
        return
    if few.padded != "told":
        raise Skip("no lengths were given")
    if few.packed:
        raise Skip("packed rows have no padding")
    told = [name for name, leaf in every_leaf(few.arguments) if _tells_lengths(few, name, leaf)]
    if len(told) > 1 and not _shown(few):
        raise Skip(f"{' and '.join(told)} tell lengths, and whose they are is not known")
    steady(seen)
    arguments, lengths = with_padding(seen)
    own = steps_of(lengths, few.time)
    before = base_of(seen, arguments)
    changed = few.changed(~own, seen.rng(rule.code), arguments)
    # Rows without steps are asked by HS105.
    some = np.flatnonzero(lengths)
    found = worst([each.only(some) for each in differences(few, before, few.run(changed), own)])
    if found is None:
        return
    # Where the amount changes nothing, the module tells padding by what stands there.
    told_by_symbol = few.fixed_steps is None and amount(seen) is None
    measured = (
        f"Other content in the padding changes {found.output.name} of {_rows(found)} by "
        f"{found.largest:.3g}, {found.share:.2%} of its largest value."
    )
    if told_by_symbol:
        measured += " More or less of the padding as it is changes nothing."
    else:
        measured += differing_layer(seen, arguments, changed, own)
    yield rule.finding(
        found.output.name,
        measured,
        {"difference": found.largest, "share": found.share, "rows": len(found.rows)},
        severity=Severity.NOTE if told_by_symbol else None,
        picture=by_row(found, "Other content in the padding", "steps of the row", lengths),
    )


def _content_before(seen: Examination, rule: Rule, mask: str, own: Mask) -> Iterator[Finding]:
    """Say so where other content in padding that stands before the rows changes the result."""
    few, known = seen.few, steady(seen)
    after = few.run(few.changed(~own, seen.rng(rule.code)))
    found = worst(differences(few, known, after, own))
    if found is not None:
        yield rule.finding(
            found.output.name,
            f"Other content at the steps that {mask} marks as padding, before the rows' first "
            f"steps, changes {found.output.name} of {_rows(found)} by {found.largest:.3g}, "
            f"{found.share:.2%} of its largest value.",
            {"difference": found.largest, "share": found.share, "rows": len(found.rows)},
        )


def _padded_before(few: Subject) -> tuple[str, Mask] | None:
    """Return a mask whose rows begin with padding, and its real steps [B, T]; None without one."""
    place = few.layout.places[few.layout.main]
    for name, leaf in every_leaf(few.arguments):
        if name in few.sequences or not isinstance(leaf, Tensor) or not called(name, MASK):
            continue
        if leaf.ndim != 2 or bool(((leaf != 0) & (leaf != 1)).any()):
            continue
        view = steps_first(leaf, place)
        if tuple(view.shape) != (few.batch, few.time):
            continue
        # Every row ends in a real step, and after its first one there is no padding.
        own: Mask = (view == view[0, -1]).cpu().numpy()
        if own[:, -1].all() and not own.all() and not (own[:, :-1] & ~own[:, 1:]).any():
            return name, own
    return None


@rule(
    "HS102",
    "padding-amount",
    Severity.ERROR,
    asks="Does a row give the same with less padding after it?",
    because="How much padding follows a row is decided by the longest row of its batch. A result "
    "that depends on it is another one for each batch, and another one again when the row comes "
    "alone.",
    remedy="Give the lengths to the recurrent layer (pack_padded_sequence, or a layer that takes "
    "lengths); reverse each row within its own length for a backward direction; read the state at "
    "the row's own last step; mask the padding in means, maxima and softmaxes over time.",
    limits=SHARE,
)
def padding_amount(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The batch is cropped to the length of some of its rows."""
    if seen.few.padded != "told":
        raise Skip("no lengths were given")
    steady(seen)
    yield from _amount(seen, rule, "")


@rule(
    "HS103",
    "padding-untold",
    Severity.ERROR,
    asks="Is a row's end known to a module whose rows end in padding?",
    because="Without lengths the layer reads the padding as if it were data: its last state is "
    "that after the padding, and the backward direction begins in it. The result depends on how "
    "much of it the longest row of the batch brought along.",
    remedy="Give the lengths of the rows to the module and use them: pack_padded_sequence or a "
    "layer that takes lengths, the state at each row's own last step, masked means and softmaxes.",
    limits=SHARE,
)
def padding_untold(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """No lengths are given, rows end in one symbol or in zeros; the batch is cropped."""
    if seen.few.padded == "told":
        raise Skip("lengths were given")
    if seen.few.padded is None:
        raise Skip("the rows do not end in padding")
    steady(seen)
    ends = seen.few.ends
    told = f" No lengths are given, and the rows end in padding after {ends.min()} to {ends.max()}"
    yield from _amount(seen, rule, f"{told} of {seen.few.time} steps.")


def with_padding(seen: Examination) -> tuple[dict[str, Any], Lengths]:
    """Return arguments of `seen.few` with padding in some row, and their lengths.

    Where all rows are full, all but the first are told to be shorter.
    """
    few, lengths = seen.few, seen.few.ends
    if few.padded != "told" or (lengths < few.time).any():
        return few.arguments, lengths
    shorter = np.maximum(1, (0.6 * lengths).astype(np.int64))
    if few.batch > 1:
        shorter[0] = lengths[0]
    if (shorter == lengths).all():
        raise Skip("the rows are too short to be padded")
    return few.with_lengths(shorter), shorter


def steps_of(lengths: Lengths, time: int) -> Mask:
    """Return [B, T], true at the rows' own steps."""
    valid: Mask = np.arange(time) < lengths[:, None]
    return valid


@dataclass(frozen=True)
class Crop:
    """A crop of `arguments` with these lengths [B] to so many steps, and what it changed."""

    arguments: dict[str, Any]
    lengths: Lengths
    steps: int
    found: Difference


def amount(seen: Examination) -> Crop | None:
    """Return the worst difference that a crop makes; None without any."""
    return seen.known("padding amount", lambda: _cropped(seen))


def _cropped(seen: Examination) -> Crop | None:
    few = seen.few
    if few.fixed_steps is not None:
        raise Skip(f"no other number of steps can be run: {few.fixed_steps}")
    arguments, lengths = with_padding(seen)
    shorter = np.unique(lengths[(lengths > 0) & (lengths < few.time)])
    if not len(shorter):
        raise Skip("no row is shorter than the others")
    crops = _crops(seen, arguments, lengths, [int(shorter[0]), int(shorter[len(shorter) // 2])])
    if not crops and few.padded == "told" and few.time > SHORT:
        # A maximum over padding shows where little stands beside it.
        brief = np.minimum(lengths, SHORT)
        brief[0] = lengths[0]
        try:
            crops = _crops(seen, few.with_lengths(brief), brief, [SHORT])
        except Refused:
            return None
    return max(crops, key=lambda each: each.found.share, default=None)


def _crops(
    seen: Examination, arguments: dict[str, Any], lengths: Lengths, ends: list[int]
) -> list[Crop]:
    few, found = seen.few, []
    before = base_of(seen, arguments)
    for steps in dict.fromkeys(ends):
        rows = np.flatnonzero((lengths <= steps) & (lengths > 0))
        after = few.run(few.steps(steps, arguments=arguments))
        for each in differences(few, before, after, steps_of(lengths, steps)):
            # The others lost steps of their own.
            short = each.only(rows)
            if short.counts:
                found.append(Crop(arguments, lengths, steps, short))
    return found


def _amount(seen: Examination, rule: Rule, told: str) -> Iterator[Finding]:
    cropped = amount(seen)
    if cropped is None:
        return
    arguments, lengths, steps = cropped.arguments, cropped.lengths, cropped.steps
    few, found = seen.few, cropped.found
    rows = np.flatnonzero(lengths <= steps)
    measured = (
        f"Cropped after step {steps} of {few.time}, with nothing but padding taken from "
        f"{len(rows)} of the rows, {found.output.name} of {_rows(found)} changes by "
        f"{found.largest:.3g}, {found.share:.2%} of its largest value.{told}"
    )
    where = steps_of(lengths, steps)
    where[lengths > steps] = False
    measured += differing_layer(seen, arguments, few.steps(steps, arguments=arguments), where)
    yield rule.finding(
        found.output.name,
        measured,
        {"difference": found.largest, "share": found.share, "steps": steps},
        picture=by_row(
            found, f"Padding after step {steps} taken away", "steps of the row", lengths
        ),
    )


def by_row(found: Difference, title: str, x_label: str, x: Lengths | None = None) -> Picture:
    """Return the picture of a difference row by row, over a number of each row."""
    order = np.arange(len(found.by_row)) if x is None else np.argsort(x, kind="stable")
    places = np.arange(len(order)) if x is None else x[order]
    return Picture(
        "scatter",
        title,
        x_label,
        f"largest change of {found.output.name}",
        {"rows": np.stack([places, found.by_row[order]], 1).astype(float)},
    )


def _tells_lengths(few: Subject, name: str, leaf: Any) -> bool:
    whole = isinstance(leaf, Tensor) and not leaf.is_floating_point()
    return whole and called(name, LENGTHS) and tuple(leaf.shape) == (few.batch,)


def _shown(few: Subject) -> bool:
    """Return whether the main sequence is padded just where the lengths say."""
    found = ends_of(few.array(few.layout.main))
    return found is not None and bool((found == few.ends).all())


def _rows(found: Difference) -> str:
    rows = found.rows
    return f"row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows"
