"""Laws of every registered problem with a known answer."""

from __future__ import annotations

import os
from dataclasses import fields

import numpy as np
import pytest

from hiddenstate.errors import DataError, UsageError
from hiddenstate.tasks.problems import PROBLEMS, Problem, parse_problem
from hiddenstate.tasks.problems.signals import attractor
from tests.naive import problems as naive

TEXTS = {
    "adding": ["length=2-30", "length=9,marks_in=halves"],
    "copy": ["length=1-20", "length=5,symbols=3,alphabet=2"],
    "delayed_recall": ["length=1-20", "length=7,alphabet=9"],
    "parity": [""],
    "even_pairs": [""],
    "modular_arithmetic": [""],
    "cycle_navigation": ["", "length=2-9,places=4"],
    "dyck": ["", "ask=whole", "kinds=1,depth=3,length=4-9", "kinds=3,depth=2", "kinds=1,ask=whole"],
    "bucket_sort": ["length=1-12", "alphabet=2,length=4"],
    "mqar": ["length=16-65", "pairs=2,length=8,vocabulary=6", "vocabulary=256,length=20"],
    "mackey_glass": ["length=30-60,horizon=4", "length=40,delay=30,horizon=90"],
    "sequential_digits": ["coarse=7", "coarse=4,permuted=true,length=0-5"],
}
CASES = [f"problem:{name}:{rest}".rstrip(":") for name, all_ in TEXTS.items() for rest in all_]


@pytest.fixture(params=CASES)
def problem(request: pytest.FixtureRequest) -> Problem:
    if "digits" in request.param and not os.environ.get("HIDDENSTATE_DATA"):
        pytest.skip("HIDDENSTATE_DATA is not set: no digits")
    return parse_problem(request.param)


def drawn(problem: Problem, cases: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    lengths = problem.length.draw(rng, cases)
    return lengths, problem.sample(rng, lengths, "test")


def test_every_registered_problem_is_tested() -> None:
    assert set(TEXTS) == set(PROBLEMS)


def test_the_same_seed_gives_the_same_cases(problem: Problem) -> None:
    (_, one), (_, same), (_, other) = (drawn(problem, 20, seed) for seed in (3, 3, 4))
    for name in (field.name for field in fields(one)):
        assert np.array_equal(getattr(one, name), getattr(same, name))
    assert len(one.codes) != len(other.codes) or not (
        np.array_equal(one.codes, other.codes) and np.array_equal(one.numbers, other.numbers)
    )


def test_lengths_are_honoured_and_shapes_agree(problem: Problem) -> None:
    lengths, cases = drawn(problem, 50)
    assert np.array_equal(cases.lengths, problem.steps(lengths))
    assert (problem.steps(lengths) >= lengths - 1).all()
    steps = int(cases.offsets[-1])
    assert cases.codes.shape == (steps, len(problem.code_sizes))
    assert cases.numbers.shape == (steps, len(problem.number_names))
    assert cases.values.shape == cases.mask.shape == ((steps if problem.per_step else 50),)
    for column, size in zip(cases.codes.T, problem.code_sizes, strict=True):
        assert column.min() >= 0
        assert column.max() < size
    if problem.kind == "classes":
        asked = cases.values[cases.mask]
        assert set(asked.tolist()) <= set(range(len(problem.classes)))
    counted = np.bincount(cases.case[cases.mask], minlength=50)
    assert counted.tolist() == [problem.answers(int(length)) for length in lengths]


def solved(problem: Problem, cases, case: int) -> list[object]:
    rows = slice(cases.offsets[case], cases.offsets[case + 1])
    given = {field.name: getattr(problem, field.name) for field in fields(problem)}
    if problem.name == "mackey_glass":
        given["mean"], given["deviation"], _ = attractor(given["delay"])
    seen = cases.codes[rows, 0] if problem.code_sizes else cases.numbers[rows]
    return getattr(naive, problem.name)(seen.tolist(), **given)


def test_targets_and_mask_are_those_of_the_definition(problem: Problem) -> None:
    """So the ceiling is reached as well: what solves the definition is always right."""
    if problem.ceiling is None:
        pytest.skip(f"{problem.name}: nobody knows the answers but those who labelled the file")
    _, cases = drawn(problem, 60)
    right = np.zeros(len(cases.values))
    for case in range(60):
        answers = solved(problem, cases, case)
        rows = np.flatnonzero(cases.case == case)
        assert len(answers) == len(rows)
        for row, answer in zip(rows, answers):
            # A filler of MQAR may look like a question; what is asked is always answered.
            assert answer is not None or not cases.mask[row]
            if problem.name != "mqar":
                assert cases.mask[row] == (answer is not None)
            right[row] = 0 if answer is None else answer
    tolerance = 0.0015 if problem.name == "mackey_glass" else 1e-6
    assert right[cases.mask] == pytest.approx(cases.values[cases.mask], abs=tolerance)
    given = right if problem.kind == "number" else np.eye(len(problem.classes))[right.astype(int)]
    score = problem.marks(cases, given).mean()
    assert score == pytest.approx(problem.ceiling, abs=tolerance**2 + 1e-12)


def test_the_floor_is_what_its_guesser_reaches(problem: Problem) -> None:
    lengths, cases = drawn(problem, 1000, seed=1)
    marks = problem.marks(cases, problem.guess(cases))
    of_case = cases.case[cases.mask]
    floor = problem.mean_floor(lengths)
    # Answers of one case hang together, so the error of the mean is that over cases.
    counts = np.bincount(of_case, minlength=len(lengths))
    excess = np.bincount(of_case, marks, len(lengths)) - floor * counts
    error = np.sqrt((excess**2).sum()) / counts.sum()
    assert marks.mean() == pytest.approx(floor, abs=4 * error + 1e-9)


def test_at_one_length_too(problem: Problem) -> None:
    length = problem.length.high
    cases = problem.sample(np.random.default_rng(2), np.full(1000, length), "test")
    marks = problem.marks(cases, problem.guess(cases))
    counts = problem.answers(length)
    means = marks.reshape(1000, counts).mean(axis=1)
    error = means.std() / np.sqrt(len(means))
    assert means.mean() == pytest.approx(problem.floor(length), abs=4 * error + 1e-9)


def test_the_ceiling_is_better_than_the_floor(problem: Problem) -> None:
    if problem.ceiling is not None:
        gain = problem.ceiling - problem.mean_floor(np.array(problem.length))
        assert gain > 0 if problem.metric == "accuracy" else gain < 0


def test_parts_of_a_file_have_no_case_in_common() -> None:
    if not os.environ.get("HIDDENSTATE_DATA"):
        pytest.skip("HIDDENSTATE_DATA is not set: no digits")
    problem = parse_problem("sequential_digits:coarse=2")
    rng = np.random.default_rng(0)
    seen = [
        {case.tobytes() for case in np.split(cases.numbers, cases.offsets[1:-1])}
        for part, count in (("train", 9000), ("validation", 1000), ("test", 10_000))
        for cases in [problem.sample(rng, np.zeros(count, dtype=np.int64), part)]
    ]
    assert len(seen[0]) > 8900
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_text_and_problem_name_each_other(problem: Problem) -> None:
    assert parse_problem(problem.text) == problem


def test_published_figures_name_their_source(problem: Problem) -> None:
    for figure in problem.published:
        assert "arXiv" in figure.source
        assert figure.setting


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("problem:ading", "adding"),
        ("adding:lenght=3", "length"),
        ("adding:length", "no value"),
        ("adding:length=long", "length, or two"),
        ("adding:length=40-1", "length, or two"),
        ("adding:length=1", "at least 2"),
        ("adding:marks_in=both", "anywhere, halves"),
        ("parity:length=0", "at least 1"),
        ("parity:length=9999999", "at most 1,000,000"),
        ("mqar:length=15", "at least 16"),
        ("mqar:vocabulary=8", "from 10"),
        ("dyck:depth=0", "from 1"),
        ("sequential_digits:permuted=yes", "true or false"),
        ("sequential_digits:coarse=3", "1, 2, 4, 7"),
        ("cycle_navigation:places=two", "whole number"),
    ],
)
def test_wrong_parameters_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_problem(text)


def test_missing_digits_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    problem = parse_problem("sequential_digits")
    for folder in (None, str(tmp_path)):
        if folder:
            monkeypatch.setenv("HIDDENSTATE_DATA", folder)
        else:
            monkeypatch.delenv("HIDDENSTATE_DATA", raising=False)
        from hiddenstate.tasks.problems import digits

        digits._digits.cache_clear()
        with pytest.raises(DataError, match="HIDDENSTATE_DATA"):
            problem.sample(np.random.default_rng(0), np.zeros(1, dtype=np.int64), "validation")
