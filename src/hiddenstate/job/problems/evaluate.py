"""Scores of a model on a problem with a known answer, at every length asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data import batches
from hiddenstate.job.scores import Json, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.tasks import Verdict
from hiddenstate.tasks.compare import FEWEST_CASES, HIGHER_IS_BETTER
from hiddenstate.tasks.problems import Cases, Problem
from hiddenstate.tasks.problems.streams import stream
from hiddenstate.tasks.resampling import Resampling, Score, finite, interval, ratio
from hiddenstate.tasks.scores import Bucket, Scores

Array = NDArray[Any]

UNITS = ("sequences", "steps")
BATCH_STEPS = 16_384


def test_cases(problem: Problem, length: int, count: int) -> Cases:
    """Draw the sequences of one length that every model of this problem is scored on."""
    return problem.sample(stream("test", 0, length), np.full(count, length), "test")


def predictions(runtime: Runtime, problem: Problem, cases: Cases) -> Array:
    """Return probabilities [*, V] or numbers [*] for the values of cases, float64."""
    found = np.zeros((len(cases.values), max(len(problem.classes), 1)))
    lengths, last = cases.lengths, max(len(cases.codes) - 1, 0)
    for chosen in batches(lengths, batch_size=512, batch_events=BATCH_STEPS, shuffle=False):
        steps = np.arange(int(lengths[chosen].max()))
        real = steps < lengths[chosen][:, None]
        rows = np.minimum(cases.offsets[chosen][:, None] + steps, last)
        outputs = runtime.run_whole(cases.codes[rows], cases.numbers[rows], lengths[chosen])
        (told,) = runtime.decode(outputs)
        if problem.per_step:
            found[rows[real]] = told[real]
        else:
            found[chosen] = told
    return np.exp(found) if problem.classes else found[:, 0]


def evaluate_problem(
    runtime: Runtime,
    problem: Problem,
    lengths: Sequence[int],
    *,
    count: int = 500,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Json:
    """Return the scores at these lengths, of the guesser and of the ceiling, as JSON values.

    The score by history length is that of whole sequences of one length each.
    """
    drawn = [test_cases(problem, length, count) for length in lengths]
    answers = [
        (problem.marks(cases, predictions(runtime, problem, cases)), cases) for cases in drawn
    ]
    guesses = [(problem.marks(cases, problem.guess(cases)), cases) for cases in drawn]
    model, guess = (_scores(problem, lengths, each, bootstrap, seed) for each in (answers, guesses))
    task = {
        "kind": problem.kind,
        # What the scores "by length" go by.
        "by": problem.length_means,
        "model": model.to_json(),
        "floors": {"guess": guess.to_json()},
        "floors_description": f"a guess without memory, by formula {_floors(problem, lengths)}",
        "verdicts": {
            "guess": {problem.metric: _verdict(problem, answers, guesses, bootstrap, seed)}
        },
    }
    if problem.ceiling is not None:
        best = Score(problem.ceiling, float("nan"), float("nan"))
        task["ceiling"] = {"metrics": {problem.metric: best.to_json()}}
    cases, steps = (sum(sizes) for sizes in zip(*((len(c.lengths), len(c.codes)) for c in drawn)))
    tasks = {problem.text: task}
    return result(runtime.fingerprint, cases, steps, tasks, (problem.metric,), UNITS)


def _floors(problem: Problem, lengths: Sequence[int]) -> str:
    """Return the floors at some lengths in words, alike ones once."""
    floors = [problem.floor(length) for length in lengths]
    if max(floors) - min(floors) < 1e-9:
        return f"{floors[0]:.4g}"
    return ", ".join(f"{floor:.4g} at {length}" for floor, length in zip(floors, lengths))


Marks = Sequence[tuple[NDArray[np.float64], Cases]]


def _joined(marks: Marks) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return all values and the case of each, cases of every length counted on."""
    before = np.cumsum([0, *(len(cases.lengths) for _, cases in marks)])
    owner = [cases.case[cases.mask] + first for (_, cases), first in zip(marks, before)]
    return np.concatenate([values for values, _ in marks]), np.concatenate(owner)


def _scores(
    problem: Problem, lengths: Sequence[int], marks: Marks, bootstrap: int, seed: int
) -> Scores:
    values, case = _joined(marks)
    buckets = []
    for length, (each, cases) in zip(lengths, marks, strict=True):
        score = _mean(each, cases.case[cases.mask], bootstrap, seed)
        buckets.append(Bucket(length, length, len(each), {problem.metric: score}))
    whole = _mean(values, case, bootstrap, seed)
    return Scores(len(values), len(np.unique(case)), 0, {problem.metric: whole}, tuple(buckets))


def _mean(values: NDArray[np.float64], case: Array, bootstrap: int, seed: int) -> Score:
    draws = Resampling(case, bootstrap, seed)
    return interval(ratio(draws.sums(values)[:, 0], draws.sums(np.ones(len(values)))[:, 0]))


def _verdict(problem: Problem, model: Marks, guess: Marks, bootstrap: int, seed: int) -> Json:
    """Compare a model with the guesser by resampling their cases together."""
    (values, case), (others, _) = _joined(model), _joined(guess)
    gap = _mean(values - others, case, bootstrap, seed)
    better = gap.low > 0 if problem.metric in HIGHER_IS_BETTER else gap.high < 0
    worse = gap.high < 0 if problem.metric in HIGHER_IS_BETTER else gap.low > 0
    cases = len(np.unique(case))
    sided = cases >= FEWEST_CASES and (better or worse)
    return Verdict(
        problem.metric,
        float(values.mean()),
        float(others.mean()),
        finite(gap.value),
        finite(gap.low),
        finite(gap.high),
        cases,
        ("better" if better else "worse") if sided else "tie",
        "guess",
        UNITS[0],
    ).to_json()
