"""A model fitted to a problem with a known answer, and the sequences it is fitted to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import hiddenstate
from hiddenstate.errors import UsageError
from hiddenstate.job.problems.feed import ProblemFeed
from hiddenstate.job.problems.prepare import prepare
from hiddenstate.schema import Plain, input_spec_from_json
from hiddenstate.tasks.problems import PROBLEMS, parse_problem
from hiddenstate.tasks.problems.streams import stream
from hiddenstate.train import read_recipe
from hiddenstate.train.recipe.problems import Problems

TINY: dict[str, Any] = {
    "hidden_size": 4,
    "epochs": 2,
    "threads": 1,
    "batch_size": 8,
    "problems.sequences": 16,
    "problems.validation_sequences": 8,
    "problems.test_sequences": 12,
}
SHORT = {
    "adding": "length=4-6",
    "copy": "length=3,symbols=2",
    "delayed_recall": "length=3",
    "dyck": "length=4",
    "mqar": "length=16",
    "mackey_glass": "length=20,horizon=2",
}
NO_FILE = [name for name in PROBLEMS if name != "sequential_digits"]


def recipe(name: str, **settings: object) -> Any:
    text = f"problem:{name}:{SHORT[name]}" if name in SHORT else f"problem:{name}:length=1-5"
    return read_recipe(None, {"tasks": [text], **TINY, **settings})


@pytest.mark.parametrize("name", NO_FILE)
def test_every_problem_can_be_learnt(name: str) -> None:
    chosen = recipe(name, cell="gru")
    model = hiddenstate.fit(chosen.tasks[0], recipe=chosen)
    problem = parse_problem(chosen.tasks[0])
    scores = model.metrics["scores"]
    by_length = scores["tasks"][problem.text]["model"]["by_length"]
    assert [part["from"] for part in by_length] == sorted(set(problem.length))
    assert set(scores["floors"]) == {"guess"}
    assert model.evaluate() == {key: scores[key] for key in scores if key != "part"}
    table = model.predict(cases=3)
    assert table.columns == ["case", "step", "truth", "predicted"]
    assert table.height == 3 * problem.answers(problem.length.high)


def test_scores_at_other_lengths() -> None:
    chosen = recipe("parity", cell="elman")
    model = hiddenstate.fit(chosen.tasks[0], recipe=chosen)
    asked = model.evaluate("problem:parity:length=9-11")["tasks"]["problem:parity:length=1-5"]
    assert [part["from"] for part in asked["model"]["by_length"]] == [9, 11]
    with pytest.raises(UsageError, match="fitted to problem:parity"):
        model.evaluate("problem:even_pairs")
    for option in ({"shuffle": True}, {"case": "ticket"}):
        with pytest.raises(UsageError, match="drawn and not read"):
            model.evaluate(**option)


def test_source_and_task_are_one_problem() -> None:
    with pytest.raises(UsageError, match="its own source"):
        prepare("problem:adding", recipe("parity"), lambda _: None)


def feed(**settings: Any) -> ProblemFeed:
    problem = parse_problem("parity:length=2-40")
    return ProblemFeed(problem, Problems(sequences=64, **settings), seed=3, epochs=10)


def drawn(source: ProblemFeed, epoch: int) -> list[list[int]]:
    train = recipe("parity").train
    batches = [source.batch(item) for item in source.order(train, epoch)]
    return [batch.codes.flatten().tolist() for batch in batches]


def test_every_epoch_is_new_and_comes_again_from_the_seed() -> None:
    fresh, same = feed(), feed(fresh=False)
    assert {str(row) for row in rows(fresh, 1)} != {str(row) for row in rows(fresh, 2)}
    assert drawn(fresh, 1) == drawn(feed(), 1)
    assert sorted(same.lengths.tolist()) == sorted(feed(fresh=False).lengths.tolist())
    one, other = ({str(row) for row in rows(same, epoch)} for epoch in (1, 2))
    assert one == other


def rows(source: ProblemFeed, epoch: int) -> list[list[int]]:
    train = recipe("parity").train
    return [
        codes[:steps].flatten().tolist()
        for item in source.order(train, epoch)
        for batch in [source.batch(item)]
        for codes, steps in zip(batch.codes, batch.lengths.tolist())
    ]


def test_a_curriculum_grows_by_a_factor_to_the_whole_span() -> None:
    growing = feed(grow=0.5)
    tops = [growing.span(epoch).high for epoch in range(1, 11)]
    assert tops[0] == 2
    assert tops == sorted(tops)
    assert tops[5:] == [40] * 5
    factors = [b / a for a, b in pairwise(tops[:6])]
    assert factors == pytest.approx([20 ** (1 / 5)] * 5, rel=0.2)
    assert max(len(row) for row in rows(growing, 1)) == 2


def test_processes_share_a_batch() -> None:
    source = feed()
    item = source.order(recipe("parity").train, 1)[0]
    parts = [source.part(item, index, 2).cases for index in range(2)]
    assert sorted(np.concatenate(parts).tolist()) == sorted(item.cases.tolist())


def test_plain_inputs_round_trip() -> None:
    plain = Plain((3, 5), ("x", "y"))
    assert input_spec_from_json(plain.to_json()) == plain


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**33])
def test_no_sequence_is_learnt_from_and_scored_on(seed: int) -> None:
    """The streams of training, order, validation and test never coincide, whatever the seed."""
    purposes = ("training", "order", "validation", "test")
    draws = {
        (purpose, number): tuple(stream(purpose, seed, number).integers(2**62, size=3).tolist())
        for purpose in purposes
        for number in range(40)
    }
    others = {tuple(stream("test", 0, n).integers(2**62, size=3).tolist()) for n in range(40)}
    assert len(set(draws.values())) == len(draws)
    if seed:
        assert not others & set(draws.values())


def test_an_epoch_of_a_problem_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe(None, {"tasks": ["problem:parity"], "problems.sequences": 6, "epochs": 3})
    feed, _ = prepare("problem:parity", recipe, lambda _: None).feeds()
    seen = []
    drawn = type(feed.problem).sample
    monkeypatch.setattr(
        type(feed.problem), "sample", lambda *given: seen.append(1) or drawn(*given)
    )
    for epoch in (1, 2, 3):
        items = feed.order(recipe.train, epoch)
        assert feed.events > 0
        for item in items:
            feed.batch(item)
    assert len(seen) == 3
