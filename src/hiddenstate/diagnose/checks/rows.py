"""Rows: none may read another, whatever their content, order and number. HS121 to HS124."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.diagnose.checks.kept import keeps
from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import Difference, differences, steady, worst
from hiddenstate.diagnose.measures.crossing import crossing
from hiddenstate.diagnose.subject.calling import Refused
from hiddenstate.diagnose.subject.facts import Mask

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

SHARE = {"share of the output": 1e-4}
SHOWN = 8
"""Rows in the picture of who reads whom."""


@rule(
    "HS121",
    "rows-mixed",
    Severity.ERROR,
    asks="Does a row give the same whatever stands in the other rows?",
    because="The rows of a batch are strangers: which ones lie together is chance. Where one "
    "reads another, training learns from that chance, and a row has another result in every batch.",
    remedy="Look for a view or reshape that crosses the axis of rows (h.view(B, -1) of [layers, "
    "B, H] needs transpose(0, 1) first), a softmax, mean or norm over axis 0, batch_first that "
    "does not fit the input, and statistics over the batch in eval mode; in the loss, for answers "
    "[B] beside outputs [B, 1]: squeeze(-1) the outputs.",
    limits=SHARE,
)
def rows_mixed(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Every second row is exchanged; the others are compared. Then the other way round."""
    crossed = crossing(seen)
    if crossed is not None:
        yield rule.finding(
            "loss",
            f"In the loss {crossed.operation} of shapes {list(crossed.outputs)}, from the outputs, "
            f"and {list(crossed.answers)} gives {list(crossed.result)}: every row's output meets "
            "every row's answer.",
        )
    found = mixing(seen)
    if found is None:
        return
    readers, share = _who_reads_whom(seen)
    yield rule.finding(
        found.output.name,
        f"Other content in every second row changes {found.output.name} of {len(found.rows)} of "
        f"the {seen.few.batch} rows that were left as they are, by {found.largest:.3g}, "
        f"{found.share:.2%} of its largest value.{readers}",
        {"difference": found.largest, "share": found.share, "rows": len(found.rows)},
        picture=share,
    )


@rule(
    "HS122",
    "nan-spreads",
    Severity.ERROR,
    asks="Does a row of NaN leave the other rows' results as they are?",
    because="One broken sensor, one division by zero in one row: where its NaN reaches the other "
    "rows, a whole batch of good results is lost, and in training every weight.",
    remedy="Take values out with torch.where instead of multiplying by a mask (0 * NaN is NaN), "
    "and look for sums, norms and maxima over the axis of rows.",
)
def nan_spreads(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """One row is filled with NaN."""
    few, known = seen.few, steady(seen)
    _unmoved(seen)
    broken = few.batch // 2
    where = np.zeros_like(few.valid)
    where[broken] = few.valid[broken]
    after = few.run(few.filled(where, float("nan")))
    others = np.delete(np.arange(few.batch), broken)
    found = worst([each.only(others) for each in differences(few, known, after)])
    if found is None:
        return
    yield rule.finding(
        found.output.name,
        f"With NaN in row {broken} alone, {found.output.name} of {len(found.rows)} other rows "
        + ("is NaN." if np.isinf(found.largest) else f"changes by {found.largest:.3g}."),
        {"rows": len(found.rows)},
    )


@rule(
    "HS123",
    "row-order",
    Severity.ERROR,
    asks="Do the same rows in another order give the same results in that order?",
    because="A result that stands at another row's place is assigned to the wrong case, silently: "
    "the classic is a batch sorted by length and never put back.",
    remedy="Undo every sorting on the way out (output[unsorted], or enforce_sorted=False, which "
    "does it by itself); read rows by their own index.",
    limits=SHARE,
)
def row_order(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The rows are given in reverse, and in a random order."""
    moved = misplaced(seen)
    if moved is None:
        return
    found, places = moved
    if not places and mixing(seen) is not None:
        raise Skip("rows read each other (HS121)")
    yield rule.finding(
        found.output.name,
        f"With the rows in another order {found.output.name} differs in {len(found.rows)} of "
        f"{seen.few.batch} rows, by {found.largest:.3g}, {found.share:.2%} of its largest "
        f"value.{places}",
        {"difference": found.largest, "share": found.share, "rows": len(found.rows)},
    )


@rule(
    "HS124",
    "row-alone",
    Severity.ERROR,
    asks="Does a row alone give the same as in its batch?",
    because="Models are trained on batches and used on single cases. A result that depends on how "
    "many rows lie beside it is wrong in one of the two.",
    remedy="Call eval() before use and give F.dropout and F.batch_norm training=self.training; "
    "name the axis in squeeze(axis), for a batch of one loses its own; divide by a row's own "
    "counts, not by the batch's; take no softmax over axis 0.",
    limits=SHARE,
)
def row_alone(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Some rows are given each in a batch of its own, as long as before."""
    few, known = seen.few, steady(seen)
    if few.fixed_rows is not None:
        raise Skip(f"no other number of rows can be run: {few.fixed_rows}")
    _unmoved(seen)
    rows = np.arange(few.batch)
    if few.padded is not None:
        # Alone, a row may lose its padding: HS102 asks that.
        rows = np.flatnonzero(few.ends == few.ends.max())
    worse: list[tuple[int, Difference]] = []
    for row in dict.fromkeys(int(rows[k]) for k in (0, len(rows) // 2, -1)):
        after = few.run(few.rows([row]))
        for output, one, other in zip(few.outputs, known.outputs, after):
            if output.batch_axis is not None and one.ndim != other.ndim:
                yield rule.finding(
                    output.name,
                    f"Row {row} alone gives {output.name} of shape {list(other.shape)}; in the "
                    f"batch of {few.batch} its shape is {list(one.shape)}.",
                    {"row": row},
                )
                return
        each = worst(differences(few, known, after, rows=[row]))
        if each is not None:
            worse.append((row, each))
    if worse:
        row, found = max(worse, key=lambda pair: pair[1].share)
        yield rule.finding(
            found.output.name,
            f"Row {row} alone differs from the same row in the batch of {few.batch} by "
            f"{found.largest:.3g} in {found.output.name}, {found.share:.2%} of its largest value.",
            {"difference": found.largest, "share": found.share, "row": row},
        )


def misplaced(seen: Examination) -> tuple[Difference, str] | None:
    """Return what differs with the rows in another order, and where a row's result then stands."""
    return seen.known("rows misplaced", lambda: _misplaced(seen))


def _misplaced(seen: Examination) -> tuple[Difference, str] | None:
    few, known = seen.few, steady(seen)
    _several_rows(seen)
    for order in (np.arange(few.batch)[::-1], seen.rng("order").permutation(few.batch)):
        arguments = few.rows(order)
        try:
            after = few.run(arguments)
        except Refused as error:
            raise Skip(f"in another order {error}") from error
        found = worst(differences(few, known, after, rows=order.tolist()))
        if found is not None:
            if keeps(seen) is not None:
                raise Skip("it keeps the rows' states from call to call (HS133)")
            return found, _places(seen, found, order, after)
    return None


def _unmoved(seen: Examination) -> None:
    """Raise Skip where rows read each other or stand at other places: that was said already."""
    if mixing(seen) is not None:
        raise Skip("rows read each other (HS121)")
    try:
        moved = misplaced(seen)
    except Skip:
        return
    if moved is not None:
        raise Skip("results stand at other rows' places (HS123)")


def mixing(seen: Examination) -> Difference | None:
    """Return the worst change in rows that were left as they are; None where rows are apart."""
    return seen.known("rows mixed", lambda: _mixing(seen))


def _mixing(seen: Examination) -> Difference | None:
    few = seen.few
    if few.astray:
        raise Skip("a layer takes the rows for steps (HS125)")
    _several_rows(seen)
    found: list[Difference] = []
    for parity in (0, 1):
        kept = np.arange(few.batch) % 2 == parity
        found += [each.only(np.flatnonzero(kept)) for each in _changed(seen, ~kept)]
    return worst(found)


def _changed(seen: Examination, rows: Mask) -> list[Difference]:
    few = seen.few
    where: NDArray[np.bool_] = few.valid & rows[:, None]
    after = few.run(few.changed(where, seen.rng("rows")))
    return differences(few, steady(seen), after)


def _who_reads_whom(seen: Examination) -> tuple[str, Picture | None]:
    """Return a sentence and a picture: the change of each row by a change of each other."""
    few = seen.few
    count = min(few.batch, SHOWN)
    reads = np.zeros((count, few.batch))
    try:
        for row in range(count):
            changes = _changed(seen, np.arange(few.batch) == row)
            reads[row] = np.max([each.by_row / each.limit for each in changes], axis=0)
    except Refused:
        return "", None
    read = reads[:, :count] > 1
    np.fill_diagonal(read, False)
    picture = Picture(
        "heat",
        "Which row reads which",
        "row that changes",
        "row that was exchanged",
        {"change, in multiples of the limit": np.log10(np.maximum(reads, 1.0))},
        labels=tuple(f"row {row}" for row in range(count)),
    )
    if read.all(axis=1).sum() >= count - 1 and count > 2:
        return " Every row reads every other.", picture
    pairs = [f"row {b} reads row {a}" for a, b in np.argwhere(read)]
    return (f" For example, {', '.join(pairs[:2])}." if pairs else ""), picture


def _places(seen: Examination, found: Difference, order: NDArray[Any], after: Any) -> str:
    """Return a sentence on whose place a row's result stands at now, where it stands somewhere."""
    known = steady(seen)
    index = [each.name for each in seen.few.outputs].index(found.output.name)
    axis = found.output.batch_axis
    assert axis is not None
    one, other = known.outputs[index], after[index]
    if one.shape != other.shape:
        return ""
    row = found.rows[0]
    wanted = one.select(axis, int(order[row]))
    gaps = [float((other.select(axis, k) - wanted).abs().max()) for k in range(len(order))]
    best = int(np.argmin(gaps))
    if gaps[best] > found.limit or best == row:
        return ""
    return f" The result of the row at place {row} stands at place {best}."


def _several_rows(seen: Examination) -> None:
    if seen.few.batch < 2:
        raise Skip("the batch has only one row")
