"""Scores and predictions as tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from hiddenstate.cli.output import RESULTS, note, print_json, table
from hiddenstate.job.card import FLOORS, NAMES, sentences

if TYPE_CHECKING:
    import polars

    from hiddenstate.job.model import Model

SHOWN_PREDICTIONS = 20


def show_fit(model: Model, out: Path, *, json: bool, quiet: bool) -> None:
    """Print what a fit achieved and where it is."""
    metrics = model.metrics
    if json:
        print_json({"run": str(out), "fingerprint": model.artifact.fingerprint, **metrics})
        return
    show_scores(metrics["scores"])
    training = metrics["training"]
    if model.interrupted:
        note(f"Stopped by Ctrl-C: the best model so far was kept in {out}", quiet)
    if "epochs" in training:
        note(
            f"{training['epochs']} epochs, best {training['best_epoch']}, "
            f"{training['seconds']:.0f} s; {training['parameters']:,} parameters",
            quiet,
        )
    note(f"Model card: {out / 'MODEL_CARD.md'}", quiet)


def show_scores(result: Mapping[str, Any], *, by_length: bool = True) -> None:
    """Print every task's scores between floors and ceiling, and the verdicts in words."""
    part = f"{result['part']} part: " if "part" in result else ""
    for name, task in result["tasks"].items():
        cases, events = result["units"]
        title = f"{name}, {part}{result['cases']:,} {cases}, {result['events']:,} {events}"
        shown = {FLOORS[floor]: scores for floor, scores in task["floors"].items()}
        if "ceiling" in task:
            shown["ceiling"] = task["ceiling"]
        shown["model"] = task["model"]
        rows = []
        for metric in task["model"]["metrics"]:
            values = [scores["metrics"][metric] for scores in shown.values()]
            interval = _interval(values[-1]["low"], values[-1]["high"])
            rows.append([NAMES[metric], *(_shown(each["value"]) for each in values), interval])
        table(escape(title), ["", *shown, "95 % interval"], rows)
        first = list(task["model"]["metrics"])[:2]
        buckets = [
            [
                _range(bucket["from"], bucket["to"]),
                f"{bucket['events']:,}",
                *(_shown(bucket["metrics"][metric]["value"]) for metric in first),
            ]
            for bucket in task["model"]["by_length"]
        ]
        if by_length:
            table(
                f"by {task.get('by', f'{events} seen so far')}",
                [events, "scored", *(NAMES[m] for m in first)],
                buckets,
            )
        for sentence in (*sentences(task), f"Floors: {task['floors_description']}."):
            RESULTS.print(sentence, markup=False)

    for metric, measured in result.get("shuffle", {}).items():
        if metric == "histories":
            RESULTS.print(f"Order of the past, at one event of {measured:,} cases:", markup=False)
            continue
        RESULTS.print(f"  {NAMES[metric]}: {_shuffled(measured)}", markup=False)


def show_predictions(predictions: polars.DataFrame) -> None:
    """Print the first predictions, without the columns of single classes."""
    names = [name for name in predictions.columns if not name.endswith(")")]
    rows = [
        [_text(value) for value in row] for row in predictions[names].head(SHOWN_PREDICTIONS).rows()
    ]
    table("", names, rows)
    left = predictions.height - SHOWN_PREDICTIONS
    if left > 0:
        note(f"{left} more: --out predictions.parquet holds all of them, with every probability")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _shuffled(measured: Mapping[str, Any]) -> str:
    if measured["difference"] is None:
        return "no event with a known answer"
    low, high = measured["interval"]
    none = "one case, so no interval"
    interval = none if low is None else f"95 % interval {low:+.3f} to {high:+.3f}"
    return (
        f"{_shown(measured['in_order'])} in order, {_shown(measured['shuffled'])} shuffled; "
        f"difference {measured['difference']:+.3f} ({interval})"
    )


def _range(first: int, last: int | None) -> str:
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}-{last}"


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))
