"""The shuffle ablation: a model of order loses by it, a model of what occurred does not."""

from __future__ import annotations

import numpy as np
import pytest

from hiddenstate.errors import DataError
from hiddenstate.job.events.shuffle import _random_histories, _shuffled
from hiddenstate.job.fit import fit
from hiddenstate.schema import EventLog
from hiddenstate.tasks import NextEvent


def ordered(cases: int) -> EventLog:
    """After three letters and a bar, the first letter comes again."""
    rng = np.random.default_rng(0)
    words = [rng.permutation(list("abc")).tolist() for _ in range(cases)]
    return EventLog.from_traces([[*word, "bar", word[0]] for word in words])


def test_order_is_what_this_model_knows() -> None:
    log = ordered(300)
    model = fit(log, epochs=25, hidden_size=16, threads=1, attributes=[])
    result = model.evaluate(log, shuffle=True)["shuffle"]
    assert result["histories"] == 300
    assert result["log_loss"]["difference"] > 0.2
    assert result["log_loss"]["interval"][0] > 0
    assert result["accuracy"]["shuffled"] < result["accuracy"]["in_order"]


def test_only_the_order_of_the_past_is_lost() -> None:
    log = ordered(50)
    task = NextEvent().fit(log)
    rng = np.random.default_rng(1)
    histories, answers = _random_histories(task, log, rng)
    shuffled = _shuffled(histories, rng)
    np.testing.assert_array_equal(shuffled.offsets, histories.offsets)
    moved = 0
    for case in range(histories.cases):
        before, after = (part.select([case]).activities.codes for part in (histories, shuffled))
        assert before[-1] == after[-1]
        assert sorted(before) == sorted(after)
        moved += not np.array_equal(before, after)
    assert moved > 25
    assert answers.mask.sum() == histories.cases
    truth = task.targets(log).values
    own = [truth[log.offsets[c] + histories.lengths[c] - 1] for c in range(log.cases)]
    np.testing.assert_array_equal(answers.values[answers.mask], own)


def test_short_cases_have_no_order() -> None:
    log = EventLog.from_traces([["a", "b"]] * 5)
    with pytest.raises(DataError, match="--shuffle"):
        _random_histories(NextEvent().fit(log), log, np.random.default_rng(0))
