"""The model card: what a person has to know before using the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hiddenstate.artifact import AnyLayerSpec, TransformerSpec

NAMES = {
    "accuracy": "accuracy",
    "log_loss": "log loss (nats)",
    "top_3": "top 3",
    "ece": "calibration error",
    "macro_f1": "macro F1",
    "mae_days": "mean absolute error (days)",
    "median_error_days": "median absolute error (days)",
    "bleu": "BLEU",
    "chrf": "chrF",
    "edit_similarity": "edit similarity",
    "squared_error": "mean squared error",
    "absolute_error": "mean absolute error",
    "rmse": "root mean squared error",
    "quantile_loss": "pinball loss",
    "nats": "nats per symbol",
    "bits": "bits per symbol",
    "perplexity": "perplexity",
    "mse": "mean squared error (scaled)",
    "mae": "mean absolute error (scaled)",
    "pinball": "pinball loss (scaled)",
    "coverage": "inside the interval",
    "nll": "log loss (nats per value)",
    "nats_per_frame": "log loss (nats per frame)",
    "wrong": "wrong channels",
}
FLOORS = {
    "most_frequent": "most frequent",
    "last_activity": "by last event",
    "ngram": "n-gram",
    "recent_ngram": "recent n-gram",
    "mean": "mean",
    "median": "median",
    "median_per_activity": "median by event",
    "recent_median_per_activity": "recent median",
    "nearest_source": "nearest source",
    "word_by_word": "word by word",
    "guess": "guess",
    "nearest": "nearest neighbour",
    "frame": "by frame",
    "token": "by token",
    "token_pair": "by token pair",
    "last_value": "last value",
    "day": "same time yesterday",
    "week": "same time last week",
    "period": "same time one period before",
    "period_2": "same time one second period before",
    "period_3": "same time one third period before",
    "linear": "linear model",
    "independent": "each channel alone",
    "markov": "value before",
}


@dataclass(frozen=True)
class About:
    """What the model card tells in words.

    answers: a whole sentence on what the model says
    layers:  what it is made of
    inputs:  what it reads
    found:   what was read, as "1,050 cases, 15,214 events"
    split:   how it was shared out
    limits:  what the scores do not promise, a sentence each
    """

    answers: str
    layers: str
    inputs: str
    found: str
    split: str
    limits: tuple[str, ...] = ()


def layers_in_words(layers: Iterable[AnyLayerSpec]) -> str:
    """Return for example "gru 128, gru 128" or "transformer 128, 4 blocks"."""
    return ", ".join(
        f"transformer {layer.size}, {layer.blocks} blocks"
        if isinstance(layer, TransformerSpec)
        else f"{layer.cell['cell']} {layer.cell['hidden_size']}"
        + (" in both directions" if layer.bidirectional else "")
        for layer in layers
    )


def model_card(
    tasks: Iterable[str], about: About, fingerprint: str, metrics: Mapping[str, Any]
) -> str:
    """Return the card as Markdown: purpose, data, split, scores beside floors, limits."""
    scores, training = metrics["scores"], metrics["training"]
    cases, events = scores["units"]
    lines = [
        f"# {' and '.join(tasks)} of {metrics['source']}",
        "",
        about.answers,
        "",
        "## Model",
        "",
        f"- layers: {about.layers}; {training['parameters']:,} parameters",
        f"- inputs: {about.inputs}",
        f"- fingerprint: `{fingerprint}`",
        _training_line(training),
        "",
        "## Data",
        "",
        f"- {about.found} from {metrics['source']}",
        f"- split: {about.split}",
        *(f"- {remark}" for remark in metrics["remarks"]),
        "",
        f"## Scores on the {scores['part']} part ({scores['cases']:,} {cases}, "
        f"{scores['events']:,} {events})",
    ]
    for name, task in scores["tasks"].items():
        lines += ["", f"### {name}", "", *_score_table(task), ""]
        lines += [f"- {sentence}" for sentence in sentences(task)]
        lines += [f"- Floors: {task['floors_description']}."]
    lines += [
        "",
        f"Intervals are 95 % bootstrap intervals over {cases}, left out where there is one only. "
        "An empty cell: nothing with a known answer.",
        "",
        "## Limits",
        "",
        f"- The scores hold for {cases} like those of the {scores['part']} part; what changes "
        "needs a new fit.",
        *(f"- {limit}" for limit in about.limits),
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
