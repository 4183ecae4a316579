"""The rest of open cases: how it is found, scored and refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.events.suffix import Search, evaluate_rest, refusals, rest_of_cases
from hiddenstate.job.fit import fit
from hiddenstate.schema import EventLog
from hiddenstate.tasks.edits import edit_distance, edit_similarity

TRACES = [["a", "b", "c", "d"], ["a", "c", "c", "d", "e"]] * 30


@cache
def model() -> Any:
    """A model of cases whose second activity decides the rest."""
    log = EventLog.from_traces(TRACES)
    noise = {
        "dropout": 0.0,
        "input_dropout": 0.0,
        "learning_rate": 0.03,
        "epochs": 25,
        "patience": 99,
    }
    return fit(log, hidden_size=12, embedding_size=6, batch_size=8, threads=1, **noise)


def naive(one: str, other: str) -> int:
    """Damerau-Levenshtein by breadth-first search over single edits."""
    seen, edge, steps = {one}, {one}, 0
    while other not in seen:
        steps += 1
        edge = {new for text in edge for new in edits(text)} - seen
        seen |= edge
    return steps


def edits(text: str) -> set[str]:
    places = range(len(text) + 1)
    swapped = {text[:k] + text[k + 1] + text[k] + text[k + 2 :] for k in places[:-2]}
    gone = {text[:k] + text[k + 1 :] for k in places[:-1]}
    new = {text[:k] + letter + text[k:] for k in places for letter in "ab"}
    other = {text[:k] + letter + text[k + 1 :] for k in places[:-1] for letter in "ab"}
    return swapped | gone | new | other


def test_the_edit_distance_is_the_fewest_edits() -> None:
    words = ["".join(word) for length in range(4) for word in product("ab", repeat=length)]
    for one, other in product(words, words):
        assert edit_distance(one, other) == naive(one, other)
    # Two edits where only the restricted distance would need three.
    assert edit_distance("ca", "abc") == 2
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("ab", "ba") == 0.5
    assert edit_similarity([1, 2, 3], []) == 0.0


def test_the_rest_follows_from_the_past() -> None:
    fitted = model()
    log = EventLog.from_traces([["a", "b"], ["a", "c"], ["a", "b", "c", "d"], ["?", "b"]])
    for search in (Search(), Search(4, 0.5)):
        found = rest_of_cases(fitted.runtime, log, search)
        assert found[:3] == [["c", "d"], ["c", "d", "e"], []]
        for case in range(log.cases):
            assert rest_of_cases(fitted.runtime, log.select([case]), search) == [found[case]]
    (cut,) = rest_of_cases(fitted.runtime, log.select([1]), Search(), longest=2)
    assert cut == ["c", "d"]


def test_its_score_stands_beside_the_ngram_continued_alike() -> None:
    fitted = model()
    log = EventLog.from_traces(TRACES[:24])
    result = evaluate_rest(fitted.runtime, fitted._floors["next_event"], log, Search())
    scores = result["tasks"]["rest"]
    # "a" alone does not tell the two kinds apart; everything after it does.
    assert 0.9 < result["edit_similarity"] < 1.0
    late = [part for part in scores["model"]["by_length"] if part["from"] > 1]
    assert all(part["metrics"]["edit_similarity"]["value"] == 1.0 for part in late)
    assert scores["model"]["events"] == sum(len(trace) - 1 for trace in TRACES[:24])
    floors = scores["floors"]
    assert floors["ngram"]["metrics"]["edit_similarity"]["value"] > 0.9
    assert floors["last_activity"]["metrics"]["edit_similarity"]["value"] < 0.9
    assert scores["verdicts"]["ngram"]["edit_similarity"]["sentence"]
    open_case = EventLog.from_traces([["a", "b"], ["a", "b", "c", "d"]])
    ended = replace(open_case, ended=np.array([False, True]))
    some = evaluate_rest(fitted.runtime, fitted._floors["next_event"], ended, Search())
    assert some["tasks"]["rest"]["model"]["events"] == 3
    with pytest.raises(DataError, match="two events and a known end"):
        evaluate_rest(fitted.runtime, fitted._floors["next_event"], ended.select([0]), Search())


def test_what_future_events_do_not_have_is_refused() -> None:
    log = EventLog.from_traces(TRACES)
    times = np.arange(log.events) * 3_600_000_000
    timed = EventLog(log.case_ids, log.offsets, log.activity, log.categorical, {}, times)
    settings: dict[str, Any] = {"hidden_size": 4, "epochs": 1, "threads": 1, "finish_epochs": 0}
    for fitted, reason in (
        (fit(timed, **settings), "which future events do not have yet"),
        (fit(log, tasks=["occurs:e"], **settings), "not fitted to next_event"),
        (fit(log, bidirectional=True, **settings), "reads both directions"),
    ):
        assert any(reason in each for each in refusals(fitted.artifact.spec))
        with pytest.raises(UsageError, match=reason):
            rest_of_cases(fitted.runtime, log, Search())
    assert refusals(model().artifact.spec) == []
