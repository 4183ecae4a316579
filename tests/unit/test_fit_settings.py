"""Settings of a fit that hang together: what is applied, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.fit import fit
from hiddenstate.runtime import Prediction, model
from hiddenstate.schema import EventLog
from hiddenstate.tasks import simulator

LOG = simulator.simulate(30, seed=3)
QUICK: dict[str, Any] = {"epochs": 2, "hidden_size": 8, "threads": 1, "finish_epochs": 1}


@pytest.mark.parametrize(
    "settings",
    [
        {"test_file": "x.csv", "strict": True},
        {"test_file": "x.csv", "column": "team"},
        {"column": "team", "strict": True},
    ],
    ids=str,
)
def test_split_settings_that_contradict_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="together"):
        fit(LOG, **settings, **QUICK)


def test_an_event_log_obeys_exclude_and_no_timestamp() -> None:
    schema = fit(
        LOG, **{"exclude": ["team", "desk_load"], "no_timestamp": True, **QUICK}
    ).artifact.spec.schema
    assert list(schema.vocabularies) == ["activity", "account", "product"]
    assert schema.number_names == ()


@pytest.mark.parametrize("name", ["case", "activity", "format", "test_file"])
def test_an_event_log_takes_no_settings_of_files(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        fit(LOG, **{name: "csv"}, **QUICK)


def test_without_validation_the_epochs_are_told_all_the_same(tmp_path: Path) -> None:
    fitted = fit(LOG, tmp_path / "run", validation=0, **QUICK)
    assert fitted.metrics["training"]["epochs"] == 2
    assert "Ctrl-C" not in fitted.artifact.card
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2


def test_resume_needs_a_folder_and_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without out"):
        fit(LOG, resume=True, **QUICK)
    with pytest.raises(UsageError, match="with overwrite"):
        fit(LOG, tmp_path / "run", resume=True, overwrite=True, **QUICK)


def test_coupled_decay_is_not_decoupled_decay() -> None:
    """Both shrink the weights; they are not the same thing under AdamW."""

    def size(**settings: Any) -> float:
        weights = fit(LOG, **settings, **QUICK).artifact.weights
        return float(sum(np.square(value).sum() for value in weights.values()))

    plain = size(weight_decay=0.0)
    coupled, decoupled = size(weight_decay=0.0, l2=0.1), size(weight_decay=0.1)
    assert coupled < plain
    assert decoupled < plain
    assert abs(coupled - decoupled) > 0.1 * (plain - coupled)


def test_many_classes_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fit(LOG, **QUICK)
    classes = len(fitted.artifact.spec.heads[0].classes)
    monkeypatch.setattr(model, "BATCH_OUTPUTS", 100 * classes)
    predictions: list[Prediction] = list(fitted.runtime.predict(LOG))
    assert max(len(each.rows) for each in predictions) <= 100
    assert sum(len(each.rows) for each in predictions) == LOG.events


def test_a_test_part_without_answers_is_refused_before_training() -> None:
    traces = [["a", "b", "c"]] * 20 + [["a"]] * 5
    log = EventLog.from_traces(traces)
    log = replace(log, time_us=np.arange(log.events) * 10**9)
    with pytest.raises(DataError, match="test cases has a step"):
        fit(log, tasks=["time_to_next"], validation=0.1, test=0.2, **QUICK)
