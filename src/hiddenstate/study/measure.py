"""What is measured of one fitted model: a row for all that was scored, and one for each length."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hiddenstate.artifact import Artifact, TranslatorSpec
from hiddenstate.errors import UsageError
from hiddenstate.job.card import FLOORS
from hiddenstate.job.prepared import Prepared
from hiddenstate.runtime import Model as Runtime
from hiddenstate.runtime.translator import Translator
from hiddenstate.study.order import order_control
from hiddenstate.study.sizes import path_steps, state_bytes
from hiddenstate.tasks.compare import HIGHER_IS_BETTER
from hiddenstate.tasks.scores import Bucket

Row = dict[str, Any]
Json = Mapping[str, Any]

# What is run at once to time whole sequences, and how often one step is.
STEPS_RUN, STEPS_TIMED = 16_384, 30


def rows_of(model: Any, prepared: Prepared, lengths: Sequence[int]) -> Iterator[Row]:
    """Yield what is measured at all lengths together, and in each group of lengths.

    Scores are those of the fit on its held-back part, in the first metric that its task compares.

    length, group:       greatest length of a group (of one without end, the least), and its name;
                         the length is null for all together
    by:                  what lengths count
    steps, beyond:       steps of a sequence of that length; longer than anything in training
    score, low, high:    with its bootstrap interval over the cases, where there is one
    floor:               the best of the task's floors, by its score on all lengths; floor_name
    in_order, shuffled:  see `order_control`
    infer_us_per_step:   whole sequences, batched; step_us: one more step of one live sequence
    state_bytes:         kept for one live sequence; path_steps: from the first event to the output
    """
    scores = model.metrics["scores"]
    task = next(iter(scores["tasks"].values()))
    metric, floor = headline(task)
    in_order, shuffled = order_control(prepared, model.artifact.weights)
    groups = list(_groups(task["model"], lengths))
    if not groups:
        raise UsageError(
            f"Nothing was scored at the lengths {', '.join(map(str, lengths))}.",
            f"The scores are about {', '.join(map(_label, task['model']['by_length']))}.",
            "Give --lengths of these, or leave it out for all of them.",
        )
    whole = [{**task["model"], "from": None, "to": None}] * prepared.scores_all_lengths
    for group in [*whole, *groups]:
        low, high = group["from"], group["to"]
        length = low if high is None else high
        steps = None if length is None else prepared.steps_at(length)
        score = group["metrics"][metric]
        yield {
            "length": length,
            "group": _label(group),
            "by": task.get("by", scores["units"][1]),
            "steps": steps,
            "beyond": low is not None and low > prepared.longest_length,
            "metric": metric,
            "score": score["value"],
            "low": score["low"],
            "high": score["high"],
            "floor": _at(task["floors"][floor], group, metric),
            "floor_name": FLOORS.get(floor, floor),
            "ceiling": _at(task["ceiling"], group, metric) if "ceiling" in task else None,
            "answers": group["events"],
            "in_order": in_order,
            "shuffled": shuffled,
            **({} if steps is None else costs_at(model.artifact, steps)),
        }


def headline(task: Json) -> tuple[str, str]:
    """Return the metric that a task's verdicts name first, and its best floor by that."""
    metric = next(iter(next(iter(task["verdicts"].values()))))
    values = {name: floor["metrics"][metric]["value"] for name, floor in task["floors"].items()}
    known = {name: value for name, value in values.items() if value is not None} or values
    best = max if metric in HIGHER_IS_BETTER else min
    return metric, best(known, key=lambda name: known[name])


def _groups(model: Json, lengths: Sequence[int]) -> Iterator[Json]:
    """Yield the groups that hold one of the lengths, all where none is given."""
    for group in model["by_length"]:
        low, high = group["from"], group["to"]
        inside = (low <= each and (high is None or each <= high) for each in lengths)
        if not lengths or any(inside):
            yield group


def _label(group: Json) -> str:
    low, high = group["from"], group["to"]
    return "all" if low is None else Bucket(low, high, 0, {}).label


def _at(scores: Json, group: Json, metric: str) -> float | None:
    """Return a score in a group; what is known on the whole only is the same in every group."""
    ends = group["from"], group["to"]
    own = (each for each in scores.get("by_length", ()) if (each["from"], each["to"]) == ends)
    found: float | None = next(own, scores)["metrics"][metric]["value"]
    return found


def costs_at(artifact: Artifact, steps: int) -> Row:
    """Return what a sequence of so many steps costs in use; inputs that say nothing take as long.

    Of a translator: a source and a target of so many steps each.
    """
    rows = max(1, STEPS_RUN // max(steps, 1))
    run, step = (
        _translating(artifact, rows, steps)
        if isinstance(artifact.spec, TranslatorSpec)
        else _reading(artifact, rows, steps)
    )
    # The first time warms up what is slow only once.
    whole = [_seconds(run) for _ in range(2)][-1]
    once = [_seconds(step) for _ in range(STEPS_TIMED)] if step else [float("nan")]
    return {
        "infer_us_per_step": 1e6 * whole / (rows * max(steps, 1)),
        "step_us": 1e6 * float(np.median(once)),
        "state_bytes": state_bytes(artifact.spec, steps),
        "path_steps": path_steps(artifact.spec, steps),
    }


Timed = tuple[Callable[[], Any], Callable[[], Any] | None]


def _reading(artifact: Artifact, rows: int, steps: int) -> Timed:
    """Return how to read whole sequences, and one more step of one where that can be done."""
    runtime = Runtime(artifact)
    schema = runtime.spec.schema
    codes = np.zeros((rows, steps, len(schema.code_sizes)), dtype=np.int64)
    numbers = np.zeros((rows, steps, len(schema.number_names)), dtype=np.float32)
    if runtime.spec.refusals("streaming") or steps < 1:
        return lambda: runtime.run_whole(codes, numbers), None
    _, state = runtime.run(codes[:1], numbers[:1])

    def step() -> None:
        # On from the state of the step before, as a live sequence goes: its cache is not copied.
        nonlocal state
        _, state = runtime.step_many(codes[:1, 0], numbers[:1, 0], state)

    return lambda: runtime.run_whole(codes, numbers), step


def _translating(artifact: Artifact, rows: int, steps: int) -> Timed:
    """Return how to read sources and given targets, and to go on by one symbol of a target."""
    translator = Translator(artifact)
    codes, lengths = np.zeros((rows, steps), dtype=np.int64), np.full(rows, steps)
    *_, place = translator.run(codes[:1], translator.read(codes[:1], lengths[:1]))

    def step() -> None:
        nonlocal place
        _, place = translator.step(codes[:1, 0], place)

    return lambda: translator.run(codes, translator.read(codes, lengths)), step


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def training_facts(model: Any) -> Mapping[str, Any]:
    """Return what the fit itself took."""
    training = model.metrics["training"]
    return {
        "train_s": float(training.get("seconds", float("nan"))),
        "epochs": int(training.get("epochs", 0)),
        "best_loss": training.get("best_loss"),
        "fingerprint": model.artifact.fingerprint,
    }
