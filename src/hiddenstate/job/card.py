"""The model card: what a person has to know before using the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiddenstate.artifact import ModelSpec

NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log loss (nats)",
    "top_3": "top 3",
    "ece": "calibration error",
    "macro_f1": "macro F1",
    "mae_days": "mean absolute error (days)",
    "median_error_days": "median absolute error (days)",
}
FLOORS = {
    "most_frequent": "most frequent",
    "last_activity": "by last event",
    "ngram": "n-gram",
    "recent_ngram": "recent n-gram",
    "median": "median",
    "median_per_activity": "median by event",
    "recent_median_per_activity": "recent median",
}


def model_card(spec: ModelSpec, fingerprint: str, metrics: Mapping[str, Any]) -> str:
    """Return the card as Markdown: purpose, data, split, scores beside floors, limits."""
    scores, training = metrics["scores"], metrics["training"]
    cells = ", ".join(f"{layer.cell['cell']} {layer.cell['hidden_size']}" for layer in spec.layers)
    lines = [
        f"# {' and '.join(head.name for head in spec.heads)} of {metrics['source']}",
        "",
        "At every step of a case's history this model answers: "
        + "; ".join(_question(head.name) for head in spec.heads)
        + ".",
        "",
        "## Model",
        "",
        f"- layers: {cells}; {training['parameters']:,} parameters",
        f"- inputs: {', '.join([*spec.schema.vocabularies, *spec.schema.number_names])}",
        f"- fingerprint: `{fingerprint}`",
        _training_line(training),
        "",
        "## Data",
        "",
        f"- {metrics['cases']:,} cases, {metrics['events']:,} events from {metrics['source']}",
        f"- split: {metrics['split']['description']}",
        *(f"- {remark}" for remark in metrics["remarks"]),
        "",
        f"## Scores on the {scores['part']} part ({scores['cases']:,} cases, "
        f"{scores['events']:,} events)",
    ]
    for name, task in scores["tasks"].items():
        lines += ["", f"### {name}", "", *_score_table(task), ""]
        lines += [f"- {sentence}" for sentence in sentences(task)]
        lines += [f"- Floors: {task['floors_description']}."]
    lines += [
        "",
        "Intervals are 95 % bootstrap intervals over cases, left out where there is one case only. "
        "An empty cell: no event with a known answer.",
        "",
        "## Limits",
        "",
        "- The scores hold for cases like those of the "
        f"{scores['part']} part; a process that changes needs a new fit.",
        "- Activities that were not in the training part are read as one unknown activity and can "
        "never be predicted.",
        "- Probabilities are those of the recorded process; they say what usually happens next, "
        "not what should.",
        "",
    ]
    return "\n".join(lines)


def sentences(task: Mapping[str, Any]) -> list[str]:
    """Return what the scores of one task say in words: a sentence for each floor and metric."""
    return [
        verdict["sentence"]
        for by_metric in task["verdicts"].values()
        for verdict in by_metric.values()
    ]


def _question(task: str) -> str:
    kind, _, rest = task.partition(":")
    return {
        "next_event": "what happens next",
        "remaining_time": "how many days until the case ends",
        "time_to_next": "how many days until the next event",
        "occurs": f"will {rest} still happen",
        "outcome": f"how will the case end ({rest.removeprefix('column=')})",
    }[kind]


def _training_line(training: Mapping[str, Any]) -> str:
    if "epochs" not in training:
        return "- training: stopped by Ctrl-C within the first epoch"
    stopped = ", stopped by Ctrl-C" if training["interrupted"] else ""
    more = training["finish_epochs"]
    finish = f", then {more} with the validation cases" if more else ""
    return (
        f"- training: best epoch {training['best_epoch']} of {training['epochs']}{stopped}{finish}"
        f"; seed {training['seed']}, "
        f"{training['seconds']:.0f} s"
    )


def _score_table(task: Mapping[str, Any]) -> list[str]:
    rows = [("model", task["model"]), *task["floors"].items()]
    if "ceiling" in task:
        rows.append(("ceiling", task["ceiling"]))
    metrics = list(task["model"]["metrics"])
    lines = [
        "| | " + " | ".join(NAMES[metric] for metric in metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
    ]
    for name, scores in rows:
        cells = []
        for metric in metrics:
            cells.append(_cell(scores["metrics"][metric]))
        lines.append(f"| {FLOORS.get(name, name)} | " + " | ".join(cells) + " |")
    return lines


def _cell(score: Mapping[str, float | None]) -> str:
    """Return a score with its interval; neither where it has none."""
    value, low, high = score["value"], score["low"], score["high"]
    shown = "" if value is None else f"{value:.3f}"
    return shown if low is None or high is None else f"{shown} ({low:.3f}-{high:.3f})"
