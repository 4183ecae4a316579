"""The job on a log that drifts: every floor that is compared with is shown, and said to be."""

from __future__ import annotations

import json

import pytest

from hiddenstate.cli.scores import show_scores
from hiddenstate.job.fit import fit
from tests.unit.test_floors import two_regimes


def test_scores_card_and_table_show_the_recent_floors(capsys: pytest.CaptureFixture[str]) -> None:
    log = two_regimes(150, 150)
    model = fit(log, epochs=1, finish_epochs=0, hidden_size=8, tasks=["next_event", "time_to_next"])
    scores = json.loads(json.dumps(model.metrics["scores"]))
    again = model.evaluate(log.select(range(240, 300)))
    assert set(scores["verdicts"]) == {"ngram", "recent_ngram"}
    assert set(scores["verdicts"]["recent_ngram"]) == {"accuracy", "log_loss"}
    assert again["verdicts"] == scores["verdicts"]
    assert set(scores["floors"]) >= {"ngram", "recent_ngram"}
    days = scores["tasks"]["time_to_next"]["verdicts"]
    assert set(days) == {"median_per_activity", "recent_median_per_activity"}
    show_scores(scores, by_length=False)
    for text in (capsys.readouterr().out, model.artifact.card):
        assert text.count(" the recent n-gram: ") == text.count(" the n-gram: ") == 2
        assert text.count(" the recent median: ") == text.count(" the median by event: ") == 1
        assert "; recent n-gram: last 1/" in text
        assert "Floors: recent median: last 1/" in text
