"""What is measured of one fitted model: a row for every length."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate import tasks
from hiddenstate.job.events.prepared import PreparedLog
from hiddenstate.job.events.shuffle import shuffle_ablation
from hiddenstate.job.prepared import Prepared
from hiddenstate.job.problems.evaluate import predictions, test_cases
from hiddenstate.job.problems.prepare import PreparedProblem
from hiddenstate.runtime import Model as Runtime
from hiddenstate.study.sizes import path_steps, state_bytes
from hiddenstate.tasks import JudgedClasses, JudgedNumbers
from hiddenstate.tasks.problems import Cases, Problem

Row = dict[str, Any]

SHUFFLED_CASES = 200
STEPS_TIMED = 30


def rows_of(model: Any, prepared: Prepared, lengths: Sequence[int]) -> Iterator[Row]:
    """Yield what is measured at each length.

    length, steps:       on the length axis, and in steps of a sequence
    beyond:              longer than anything the model was trained on
    score, floor, ceiling; marks: mean mark of every case, the same cases for every model
    shuffled, in_order:  score at one answer of each case with its past shuffled, and as it was
    infer_us_per_step:   whole sequences, batched; step_us: one more event of one live sequence
    state_bytes:         kept for one live sequence; path_steps: from the first event to the output
    """
    runtime = model.runtime
    if isinstance(prepared, PreparedProblem):
        measured = _of_problem(runtime, prepared, lengths)
    else:
        measured = _of_events(runtime, prepared, lengths)
    for row in measured:
        layers = runtime.spec.layers
        yield {
            **row,
            "state_bytes": state_bytes(layers, row["steps"]),
            "path_steps": path_steps(layers, row["steps"]),
            "step_us": _step_us(runtime, row["steps"]),
        }


def _of_problem(
    runtime: Runtime, prepared: PreparedProblem, lengths: Sequence[int]
) -> Iterator[Row]:
    problem = prepared.problem
    for length in lengths:
        cases = test_cases(problem, length, prepared.recipe.problems.test_sequences)
        marks = problem.marks(cases, predictions(runtime, problem, cases))
        # The first pass has warmed up what is slow only once.
        began = time.perf_counter()
        predictions(runtime, problem, cases)
        seconds = time.perf_counter() - began
        order = _order_control(runtime, problem, cases)
        yield {
            "length": length,
            "steps": int(problem.steps(np.array([length]))[0]),
            "beyond": length > problem.length.high,
            "metric": problem.metric,
            "score": float(marks.mean()),
            "floor": problem.floor(length),
            "ceiling": problem.ceiling,
            "answers": len(marks),
            "marks": _by_case(marks, cases.case[cases.mask], len(cases.lengths)),
            "in_order": order[0],
            "shuffled": order[1],
            "infer_us_per_step": 1e6 * seconds / max(len(cases.codes), 1),
        }


def _order_control(runtime: Runtime, problem: Problem, cases: Cases) -> tuple[float, float]:
    """Score the last answer of each case as it is and with the steps before it shuffled."""
    rng = np.random.default_rng(0)
    rows, ends = [], []
    for first, last in zip(cases.offsets[:-1], cases.offsets[1:]):
        if problem.per_step:
            asked = np.flatnonzero(cases.mask[first:last])
            last = first + asked[-1] + 1 if len(asked) else first
        if last - first > 1:
            rows.append(np.arange(first, last))
            ends.append(last - 1)
        if len(rows) == SHUFFLED_CASES:
            break
    owners = cases.case if problem.per_step else np.arange(len(cases.lengths))
    scores = []
    for mixed in (False, True):
        order = [
            np.append(rng.permutation(each[:-1]), each[-1]) if mixed else each for each in rows
        ]
        taken = np.concatenate(order) if order else np.zeros(0, dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in order])]).astype(np.int64)
        if problem.per_step:
            values = np.zeros(len(taken), dtype=cases.values.dtype)
            mask = np.zeros(len(taken), dtype=np.bool_)
            values[offsets[1:] - 1], mask[offsets[1:] - 1] = cases.values[ends], True
        else:
            whole = np.searchsorted(cases.offsets, ends, side="right") - 1
            values, mask = cases.values[owners[whole]], np.ones(len(whole), dtype=np.bool_)
        part = Cases(cases.codes[taken], cases.numbers[taken], offsets, values, mask)
        marks = problem.marks(part, predictions(runtime, problem, part)) if order else np.zeros(0)
        scores.append(float(marks.mean()) if len(marks) else float("nan"))
    return scores[0], scores[1]


def _of_events(runtime: Runtime, prepared: Prepared, lengths: Sequence[int]) -> Iterator[Row]:
    """Group the scored events of the test part by how many events had been seen."""
    if not isinstance(prepared, PreparedLog):
        raise TypeError(f"no rows are known for {type(prepared).__name__}")
    log = next(part for part in prepared.parts[::-1] if part.cases)
    task, floors = prepared.tasks[0], prepared.fitted_floors[0]
    judge = tasks.judge(task, log)
    began = time.perf_counter()
    for rows, outputs in runtime.predict(log):
        judge.add(rows, outputs[0])
    seconds = time.perf_counter() - began
    judged = judge.result()
    metric = "accuracy" if isinstance(judged, JudgedClasses) else "mae_days"
    best = floors.judge(log, task.targets(log))[floors.compared[0]]
    own, guessed = _marks(judged), _marks(best)
    order = shuffle_ablation(runtime, log, (metric,), 100, 0)[metric]  # type: ignore[arg-type]
    longest, low = int(prepared.parts[0].lengths.max(initial=0)), 0
    for length in lengths:
        inside = (judged.length > low) & (judged.length <= length)
        if not inside.any():
            continue
        yield {
            "length": length,
            "steps": length,
            "beyond": low >= longest,
            "metric": metric,
            "score": float(own[inside].mean()),
            "floor": float(guessed[inside].mean()),
            "ceiling": None,
            "answers": int(inside.sum()),
            "marks": _by_case(own[inside], judged.case[inside], log.cases),
            "in_order": order["in_order"],
            "shuffled": order["shuffled"],
            "infer_us_per_step": 1e6 * seconds / max(log.events, 1),
        }
        low = length


def _marks(judged: Any) -> NDArray[np.float64]:
    if isinstance(judged, JudgedNumbers):
        return judged.error_days
    return np.asarray(judged.correct, dtype=np.float64)


def _by_case(marks: NDArray[np.float64], case: NDArray[Any], cases: int) -> list[float]:
    """Return the mean mark of every case, NaN for one without an answer."""
    counts = np.bincount(case, minlength=cases)
    sums = np.bincount(case, marks, cases)
    means = np.divide(sums, counts, out=np.full(cases, np.nan), where=counts > 0)
    found: list[float] = means.tolist()
    return found


def _step_us(runtime: Runtime, steps: int) -> float:
    """Return the time of one more event of one live sequence of so many steps, the median."""
    if runtime.spec.refusals("streaming") or steps < 2:
        return float("nan")
    sizes, numbers = runtime.spec.schema.code_sizes, len(runtime.spec.schema.number_names)
    codes = np.zeros((1, steps, len(sizes)), dtype=np.int64)
    values = np.zeros((1, steps, numbers), dtype=np.float32)
    _, state = runtime.run(codes, values)
    taken = []
    for _ in range(STEPS_TIMED):
        began = time.perf_counter()
        runtime.step_many(codes[:, 0], values[:, 0], state)
        taken.append(time.perf_counter() - began)
    return 1e6 * float(np.median(taken))


def training_facts(model: Any) -> Mapping[str, Any]:
    """Return what the fit itself took."""
    training = model.metrics["training"]
    return {
        "train_s": float(training.get("seconds", float("nan"))),
        "epochs": int(training.get("epochs", 0)),
        "best_loss": training.get("best_loss"),
        "fingerprint": model.artifact.fingerprint,
    }
