"""A comparison as one HTML file that needs no network: curves, tables, and how they were made."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars
from numpy.typing import NDArray

from hiddenstate.charts import Picture, document, figure
from hiddenstate.job.card import NAMES
from hiddenstate.study.plan import Plan
from hiddenstate.study.sizes import uneven

if TYPE_CHECKING:
    from hiddenstate.study.compare import Comparison

Rows = list[Sequence[str]]
Floats = NDArray[np.floating[Any]]

ORDER = (
    "Order of the past: the training loss at the last answer of sequences, with the steps before "
    "it in order and shuffled (of pairs, with the source so). A model that loses nothing does not "
    "use the order, or the task does not need it."
)
TEST = (
    "Paired t-test over seeds, two-sided, p-values corrected for their number by Holm's method "
    "(all lengths together apart from single ones). No p-value: nothing varies between the pairs, "
    "or there is one only."
)


def page(comparison: Comparison) -> str:
    """Return the page as HTML."""
    plan, scores = comparison.plan, comparison.scores()
    metric = NAMES[str(scores["metric"][0])]
    title = f"{', '.join(plan.cells)} on {plan.source}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(how(plan))}</p>",
        *(f"<p>{html.escape(told)}</p>" for told in uneven(comparison.sizes, plan.equal)),
        "<h2>Score by length</h2>",
        figure(_curves(scores, metric)),
        _table(_score_rows(scores, plan)),
        "<p>Mean over the seeds ± standard deviation; of one seed, its 95 % bootstrap interval. "
        "Grey lengths lie beyond all that was trained on.</p>",
        "<h2>Which differences are real</h2>",
        f"<p>{html.escape(TEST)}</p>",
        _table(_difference_rows(comparison.differences())),
        "<h2>Cost</h2>",
        _table(_cost_rows(comparison.costs())),
        figure(_memory(comparison.rows)),
        "<h2>Order</h2>",
        f"<p>{html.escape(ORDER)}</p>",
        _table(_order_rows(comparison.rows)),
        *_published(comparison.published),
        *_failures(comparison),
    ]
    return document(title, "\n".join(parts))


def tables(comparison: Comparison) -> dict[str, Rows]:
    """Return the tables of a comparison by their titles, each with its head as the first row."""
    scores = comparison.scores()
    metric, by = NAMES[str(scores["metric"][0])], scores["by"][0]
    return {
        f"{metric} by {by} (* beyond training)": _score_rows(scores, comparison.plan),
        "differences": _difference_rows(comparison.differences()),
        "cost": _cost_rows(comparison.costs()),
        "order of the past": _order_rows(comparison.rows),
    }


def how(plan: Plan) -> str:
    """Return in words how the comparison was made fair."""
    equal = {
        "parameters": "the same number of parameters",
        "flops": "the same number of operations in a forward step",
        "time": f"the same number of parameters and {plan.minutes} minutes of training",
    }[plan.equal]
    told = ", ".join(f"{name} = {value}" for name, value in plan.settings.items())
    return (
        f"Every cell has {equal}, as near as its hidden size allows, and sees the same data in "
        f"the same order with each of {plan.seeds} seeds." + (f" Settings: {told}." * bool(told))
    )


def _curves(scores: polars.DataFrame, metric: str) -> Picture:
    scores = scores.filter(polars.col("length").is_not_null()).sort("length")
    one = scores.unique("length", maintain_order=True)
    lengths = one["length"].to_list()
    curves, spread = {}, {}
    for (cell,), own in scores.group_by("cell", maintain_order=True):
        curves[str(cell)] = _at(lengths, own, "mean")
        spread[str(cell)] = np.nan_to_num(_at(lengths, own, "sd"))
    aside = tuple(name for name in ("floor", "ceiling") if one[name].null_count() < one.height)
    return Picture(
        "lines",
        f"{metric} by {scores['by'][0]}",
        scores["by"][0],
        metric,
        {**curves, **{name: _at(lengths, one, name) for name in aside}},
        x=np.array(lengths, float),
        log_x=True,
        spread=spread,
        aside=aside,
        beyond=_first_beyond(one),
    )


def _first_beyond(one: polars.DataFrame) -> float | None:
    """Return where the lengths past those trained on begin, in the middle of a log axis."""
    beyond = one.filter("beyond")["length"].to_list()
    if not beyond:
        return None
    within = one.filter(~polars.col("beyond"))["length"].to_list()
    return math.sqrt(max(within[-1], 1) * beyond[0]) if within else float(beyond[0])


def _memory(rows: polars.DataFrame) -> Picture:
    kept = rows.drop_nulls("state_bytes").sort("steps")
    steps = kept["steps"].unique(maintain_order=True).to_list()
    curves = {
        str(cell): _at(steps, own.unique("steps"), "state_bytes", by="steps")
        for (cell,), own in kept.group_by("cell", maintain_order=True)
    }
    return Picture(
        "lines",
        "Bytes kept for a live sequence",
        "steps so far",
        "bytes",
        curves,
        x=np.array(steps, float),
        log_x=True,
        log_y=True,
    )


def _at(places: list[int], rows: polars.DataFrame, column: str, by: str = "length") -> Floats:
    """Return a column's value at each place, NaN where there is none."""
    values = dict(rows.select(by, column).iter_rows())
    found = [values.get(place) for place in places]
    return np.array([math.nan if value is None else float(value) for value in found])


def _score_rows(scores: polars.DataFrame, plan: Plan) -> Rows:
    by, floor = scores.select("by", "floor_name").row(0)
    rows: Rows = [[by, *plan.cells, f"floor: {floor}", "ceiling"]]
    for _, part in scores.group_by("length", maintain_order=True):
        by_cell = {row["cell"]: row for row in part.iter_rows(named=True)}
        first = part.row(0, named=True)
        cells = [_spread(by_cell.get(cell)) for cell in plan.cells]
        mark = "*" if first["beyond"] else ""
        ends = [number(first["floor"]), number(first["ceiling"])]
        rows.append([f"{first['group']}{mark}", *cells, *ends])
    return rows


def _difference_rows(differences: polars.DataFrame) -> Rows:
    rows: Rows = [["length", "cells", "difference", "seeds", "p", "better"]]
    for row in differences.iter_rows(named=True):
        rows.append(
            [
                row["group"],
                f"{row['first']} - {row['second']}",
                number(row["difference"]),
                str(row["pairs"]),
                number(row["p"]),
                row["better"] or "",
            ]
        )
    return rows


def _cost_rows(costs: polars.DataFrame) -> Rows:
    length = max(int(value) for value in costs["length"])
    rows: Rows = [
        [
            "cell",
            "hidden size",
            "parameters",
            "flops a step",
            "training (s)",
            "µs a step, whole sequences",
            f"µs for one more step at {length}",
            f"bytes kept at {length}",
            f"longest path at {length} (steps)",
        ]
    ]
    for row in costs.iter_rows(named=True):
        rows.append(
            [
                row["cell"],
                str(row["hidden_size"]),
                f"{row['parameters']:,}",
                f"{row['flops_per_step']:,}",
                f"{row['train_s']:.0f}",
                number(row["infer_us_per_step"]),
                number(row["step_us"]),
                "" if row["state_bytes"] is None else f"{row['state_bytes']:,}",
                f"{row['path_steps']:,}",
            ]
        )
    return rows


def _order_rows(rows: polars.DataFrame) -> Rows:
    told: Rows = [["cell", "past in order", "past shuffled"]]
    means = polars.col("in_order", "shuffled").mean()
    for cell, *losses in rows.group_by("cell", maintain_order=True).agg(means).iter_rows():
        told.append([cell, *(number(loss) or "no past has an order" for loss in losses)])
    return told


def _published(known: Iterable[Any]) -> list[str]:
    rows: Rows = [["cell", "published", "setting", "source"]]
    for each in known:
        rows.append([each["cell"], number(each["score"]), each["setting"], each["source"]])
    return ["<h2>Published</h2>", _table(rows)] if len(rows) > 1 else []


def _failures(comparison: Comparison) -> list[str]:
    rows: Rows = [["fit", "why it failed"], *([key, why] for key, why in comparison.failed.items())]
    return ["<h2>Not made</h2>", _table(rows)] if len(rows) > 1 else []


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr{' class=beyond' * row[0].endswith('*')}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows[1:]
    )
    return f'<div class="wide-table"><table class="numbers"><tr>{head}</tr>{body}</table></div>'


def _spread(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["sd"] is None and row["low"] is not None:
        return f"{number(row['mean'])} ({number(row['low'])} to {number(row['high'])})"
    return number(row["mean"]) + ("" if row["sd"] is None else f" ± {number(row['sd'])}")


def number(value: float | None) -> str:
    """Return a number with as many digits as say something; nothing for none."""
    if value is None or math.isnan(value):
        return ""
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:,.0f}"
