"""Values have one text form wherever they come from, and what is no value is refused in words."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hiddenstate
from hiddenstate.data import check, columns, read
from hiddenstate.errors import DataError, HiddenstateError
from hiddenstate.schema import Schema
from hiddenstate.schema.raw import BLANK, label, number

BASE = {"case": ["a", "a", "b"], "activity": ["x", "y", "x"]}


def test_whole_numbers_are_the_same_labels_in_text_and_in_frames(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("case,activity,tier\n1.0,2.0,3.0\n1.0,4.0,\n2.0,2.0,3.5\n")
    frame = pl.DataFrame(
        {"case": [1.0, 1.0, 2.0], "activity": [2.0, 4.0, 2.0], "tier": [3.0, None, 3.5]}
    )
    for source in (path, frame, frame.to_pandas(use_pyarrow_extension_array=False)):
        log, _ = read(source, with_times=False, categorical=["tier"])
        assert log.case_ids.tolist() == ["1", "2"]
        assert log.activities.names().tolist() == ["2", "4", "2"]
        assert log.categorical["tier"].names().tolist() == ["3", None, "3.5"]


def test_a_case_or_an_activity_may_be_called_na() -> None:
    """One case of the published sepsis log is; a reader that drops it loses 24 events."""
    frame = pl.DataFrame({"case": ["a", "a", "NA", " "], "activity": ["x", "null", "x", "x"]})
    log, report = read(frame, with_times=False, allow_bad_rows=True)
    assert log.case_ids.tolist() == ["a", "NA"]
    assert log.activities.names().tolist() == ["x", "null", "x"]
    assert {repair.code: repair.count for repair in report.repairs} == {"no_case": 1}
    schema = Schema.fit(log)
    live = schema.encode_event({log.activity: "null"})[0]
    assert live.tolist() == schema.encode(log).codes[1].tolist()
    assert label(np.float32("nan"), BLANK) is None


def test_missing_words_are_missing_in_attributes() -> None:
    for word in (
        "",
        " ",
        "NA",
        "N/A",
        "NaN",
        "null",
        "None",
        None,
        float("nan"),
        np.float32("nan"),
    ):
        assert label(word) is None
        assert np.isnan(number("cost", word))
    assert label(np.True_) == "true"
    assert label(2.0) == label("2.0") == label(np.float32(2)) == "2"


@pytest.mark.parametrize("value", [True, "1_000", "much", [1]])
def test_what_files_do_not_take_as_a_number_is_refused_live(value: object) -> None:
    with pytest.raises(DataError, match="cost"):
        number("cost", value)


def test_numeric_outcomes_have_the_same_classes_at_fit_and_evaluate(tmp_path: Path) -> None:
    lines = ["case,activity,timestamp,result"]
    start = datetime(2024, 1, 1)
    for case in range(60):
        result = float(case % 3 + 1)
        for step, name in enumerate(["a", "b" * (case % 3 + 1), "d"]):
            moment = start + timedelta(hours=case, minutes=step)
            lines.append(f"k{case},{name},{moment},{result if name == 'd' else ''}")
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    typed = pl.read_csv(path, try_parse_dates=True)
    assert typed["result"].dtype == pl.Float64
    model = hiddenstate.fit(
        typed, tasks=["outcome:column=result"], hidden_size=4, epochs=1, threads=1, overwrite=True
    )
    results = [model.evaluate(source, bootstrap=20) for source in (path, typed)]
    assert results[0] == results[1]
    assert results[0]["cases"] == 60
    assert '"1", "2", "3"' in json.dumps([head.task for head in model.artifact.spec.heads])


@pytest.mark.parametrize(
    "values",
    [
        [10**16, -(10**16), -(2**62), 0, 0, 0, 0],
        ["9999999999999999", "1e300", "-9999999999999999", "0", "0", "0", "0"],
        [1e300, -1e300, 1e19, 0.0, 0.0, 0.0, 0.0],
        pl.Series([2**30, 2**30, -(2**30), 0, 0, 0, 0], dtype=pl.Int32).cast(pl.Date),
        pl.Series([2**62, 2**61, -(2**61), 0, 0, 0, 0]).cast(pl.Datetime("ms")),
        pl.Series([2**62, 2**61, -(2**61), 0, 0, 0, 0]).cast(pl.Datetime("us")),
    ],
    ids=["ticks", "text", "floats", "dates", "ms", "us"],
)
def test_times_outside_the_years_of_python_are_unreadable(values: object) -> None:
    frame = pl.DataFrame({"case": ["a"] * 7, "activity": ["x"] * 7, "timestamp": values})
    log, report = read(frame, allow_bad_rows=True)
    found = check(log, report)
    assert found.first_event is not None
    assert found.last_event is not None
    assert "0001" <= found.first_event[:4] <= found.last_event[:4] <= "9999"
    repair = report.repair("bad_time")
    assert repair is not None
    assert (repair.count, log.events) == (3, 4)


def test_one_wild_time_among_good_ones_is_counted_and_not_wrapped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    seconds = [1_704_067_200 + i for i in range(40)]
    text = "".join(f"c{i % 5},x,{second}\n" for i, second in enumerate(seconds))
    path.write_text("case,activity,timestamp\n" + text + "c1,y,99999999999999\n")
    log, report = read(path)
    repair = report.repair("bad_time")
    assert repair is not None
    assert (repair.count, log.events) == (1, 40)
    assert check(log, report).last_event == datetime(2024, 1, 1, 0, 0, 39, tzinfo=UTC).isoformat()


@pytest.mark.parametrize("value", [time(1), timedelta(days=1), True, b"2024", ["2024-01-01"]])
def test_a_time_column_that_holds_no_times_is_refused_by_name(value: object) -> None:
    with pytest.raises(DataError, match="'timestamp'"):
        read(pl.DataFrame({**BASE, "timestamp": [value] * 3}))


def test_dates_in_every_precision_are_the_same_times() -> None:
    want = (
        datetime(2024, 3, 4, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    ).days * 86_400_000_000
    days = pl.Series([date(2024, 3, 4)] * 3)
    local = days.cast(pl.Datetime("us"))
    forms = [days, *(local.dt.cast_time_unit(unit) for unit in ("ms", "us", "ns"))]
    for series in (*forms, local.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")):
        log, _ = read(pl.DataFrame({**BASE, "timestamp": series}))
        assert log.time_us is not None
        assert log.time_us.tolist() == [want] * 3


def test_an_asked_for_column_with_many_labels_stays_and_what_is_lost_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns, "MOST_LABELS", 3)
    frame = pl.DataFrame({"case": ["a"] * 6, "activity": ["x"] * 6, "user": list("abcdez")})
    log, report = read(frame, with_times=False, categorical=["user"])
    assert log.categorical["user"].names().tolist() == ["a", "b", "c", None, None, None]
    repair = report.repair("many_labels")
    assert repair is not None
    assert (repair.count, repair.examples) == (3, ("'user'",))
    log, report = read(frame, with_times=False, categorical=["user"], labels={"user": ("z", "e")})
    assert log.categorical["user"].names().tolist() == ["a", "b", "c", None, "e", "z"]
    assert "user" in read(frame, with_times=False)[1].dropped


FRAMES = {
    "series": pd.Series([1, 2]),
    "polars series": pl.Series([1, 2]),
    "twice": pd.DataFrame([["a", "x", 1]], columns=["case", "activity", "activity"]),
    "binary": pl.DataFrame({**BASE, "seen": [b"\xff", b"a", b"b"]}),
    "objects": pd.DataFrame({**BASE, "seen": [object(), object(), {1}]}),
    "lists": pl.DataFrame({**BASE, "activity": [["x"], ["y"], ["x"]]}),
    "pandas lists": pd.DataFrame({**BASE, "activity": [["x"], ["y"], ["x"]]}),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_that_is_no_log_is_refused_in_three_parts(frame: object) -> None:
    with pytest.raises(HiddenstateError) as caught:
        read(frame, with_times=False)
    error = caught.value
    assert error.wrong
    assert error.expected
    assert error.remedy
    assert not hasattr(frame, "columns") or "'seen'" in str(error) or "'activity'" in str(error)


def test_nested_attributes_are_left_out_and_counted() -> None:
    _, report = read(pl.DataFrame({**BASE, "seen": [[1], [2], [3]]}), with_times=False)
    repair = report.repair("nested")
    assert repair is not None
    assert (repair.count, repair.examples) == (3, ("'seen'",))


def test_a_column_that_is_taken_is_said_to_be_taken() -> None:
    frame = pl.DataFrame({"Activity": ["a", "b"], "other": ["x", "y"]})
    for given in ({"case": "Activity"}, {"case": "Activity", "activity": "activity"}):
        with pytest.raises(DataError, match="'Activity' is already the case") as caught:
            read(frame, with_times=False, **given)
        assert "Did you mean" not in str(caught.value)


def test_all_roles_that_are_missing_are_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        read(pl.DataFrame(BASE), case="ticket", activity="what", timestamp="when")
    for name in ("'ticket'", "'what'", "'when'"):
        assert name in caught.value.wrong
    assert "--case NAME and --activity NAME and --timestamp NAME" in caught.value.remedy
