"""Predictions as a table, and tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from hiddenstate.errors import UsageError
from hiddenstate.job.fit import fit
from hiddenstate.job.model import Model
from hiddenstate.job.tables import WRITERS, refuse_existing, write_table
from hiddenstate.schema import EventLog
from tests.unit.small_fits import SMALL, small_log


@pytest.fixture(scope="module")
def fitted() -> Model:
    return fit(small_log(), tasks=["next_event", "occurs:b"], **SMALL)


def test_a_row_for_the_last_event_of_every_case_that_has_one(fitted: Model) -> None:
    log = EventLog.from_traces([["a", "b"], [], ["c"]], case_ids=["x", "y", "z"])
    table = fitted.predict(log)
    assert table["case"].to_list() == ["x", "z"]
    assert table["events"].to_list() == [2, 1]
    assert table["activity"].to_list() == ["b", "c"]
    assert "time" not in table.columns
    assert fitted.predict(EventLog.from_traces([[]])).height == 0


def test_every_step_agrees_with_the_history_cut_there(fitted: Model) -> None:
    """What is predicted after the second event does not know the third."""
    table = fitted.predict(EventLog.from_traces([["a", "b", "c"]]), every_step=True)
    assert table["events"].to_list() == [1, 2, 3]
    for events in (1, 2, 3):
        cut = fitted.predict(EventLog.from_traces([["a", "b", "c"][:events]]))
        row = table.filter(polars.col("events") == events)
        for name in table.columns:
            value, expected = row[name][0], cut[name][0]
            if isinstance(value, float):
                value, expected = round(value, 6), round(expected, 6)
            if name != "case":
                assert value == expected


def test_the_answer_is_the_most_probable_class(fitted: Model) -> None:
    table = fitted.predict(small_log(), every_step=True)
    for name, classes in (("next_event", ("a", "b", "c", "<end>")), ("occurs:b", ("no", "yes"))):
        chances = table.select([f"{name}({each})" for each in classes]).to_numpy()
        np.testing.assert_allclose(chances.sum(axis=1), 1)
        assert table[name].to_list() == [classes[best] for best in chances.argmax(axis=1)]
        np.testing.assert_allclose(table[f"{name}_probability"], chances.max(axis=1))


def test_the_times_are_those_of_the_events(fitted: Model) -> None:
    log = EventLog.from_traces([["a", "b"]])
    timed = EventLog(
        log.case_ids,
        log.offsets,
        log.activity,
        log.categorical,
        {},
        np.array([0, 86_400_000_001], dtype=np.int64),
    )
    assert fitted.predict(timed)["time"][0].isoformat() == "1970-01-02T00:00:00.000001+00:00"


@pytest.mark.parametrize("ending", WRITERS)
def test_a_table_is_written_whole(ending: str, tmp_path: Path) -> None:
    table = polars.DataFrame({"case": ['ä,"b"', "c"], "x": [0.1, 2.0]})
    path = tmp_path / "deep" / f"table{ending}"
    write_table(table, path)
    read: dict[str, Any] = {
        ".parquet": polars.read_parquet,
        ".csv": polars.read_csv,
        ".jsonl": polars.read_ndjson,
    }
    assert read[ending](path).equals(table)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    for name in ("table.xlsx", "table", ".csv"):
        with pytest.raises(UsageError, match=r"\.parquet, \.csv, \.jsonl"):
            refuse_existing(tmp_path / name, overwrite=True)
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(UsageError, match="--overwrite"):
        refuse_existing(tmp_path / "t.csv", overwrite=False)
    refuse_existing(tmp_path / "t.csv", overwrite=True)
    refuse_existing(tmp_path / "new.csv", overwrite=False)


@pytest.mark.parametrize("source", [None, 3, {"a": 1}, [1], (None,)])
def test_what_is_no_source_is_refused(source: object, fitted: Model) -> None:
    with pytest.raises(UsageError, match="A log cannot be read from"):
        fitted.predict(source)
