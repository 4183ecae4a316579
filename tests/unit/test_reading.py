"""Reading: every format gives the same log, every fault is mended with a count or refused."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from hiddenstate.data import read, read_parts
from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema import EventLog

HEADER = "Case ID,Activity,Complete Timestamp,tier,cost\n"
ROWS = [
    "B,open,2024-01-01 10:00:00,gold,1.5",
    "A,open,2024-01-01 09:00:00,tin,2",
    'B,"close, at last",2024-01-01 12:00:00,,7',
    "A,call,2024-01-01 09:30:00.250,tin,",
    'A,"say ""hi""",2024-01-02 09:00:00,gold,-3e2',
]
TEXT = HEADER + "\n".join(ROWS) + "\n"


def written(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def content(log: EventLog) -> dict[str, list]:
    found = {"cases": log.case_ids.tolist(), "offsets": log.offsets.tolist()}
    found |= {"activity": log.activities.names().tolist()}
    found["time"] = [] if log.time_us is None else log.time_us.tolist()
    rest = {k: c.names().tolist() for k, c in log.categorical.items() if k != log.activity}
    numbers = {k: [None if np.isnan(v) else v for v in c] for k, c in log.numeric.items()}
    return found | rest | {k: [*map(float_or_none, v)] for k, v in numbers.items()}


def float_or_none(value: object) -> float | None:
    return None if value is None else float(value)


def expected() -> dict[str, list]:
    def us(*parts: int) -> int:
        moment = datetime(2024, *parts, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return round(moment.total_seconds() * 1e6)

    return {
        "cases": ["A", "B"],
        "offsets": [0, 3, 5],
        "activity": ["open", "call", 'say "hi"', "open", "close, at last"],
        "time": [us(1, 1, 9), us(1, 1, 9, 30, 0, 250_000), us(1, 2, 9), us(1, 1, 10), us(1, 1, 12)],
        "tier": ["tin", "tin", "gold", "gold", None],
        "cost": [2.0, None, -300.0, 1.5, 7.0],
    }


def records() -> list[dict[str, object]]:
    frame = pl.read_csv(TEXT.encode(), infer_schema=False)
    return [
        {k: float(v) if k == "cost" and v else v or None for k, v in row.items()}
        for row in frame.rows(named=True)
    ]


SOURCES = {
    "comma": lambda f: written(f, TEXT),
    "no last newline": lambda f: written(f, TEXT.rstrip("\n")),
    "crlf": lambda f: written(f, TEXT.replace("\n", "\r\n")),
    "byte order mark": lambda f: written(f, b"\xef\xbb\xbf" + TEXT.encode()),
    "gzip": lambda f: written(f, gzip.compress(TEXT.encode()), "log.csv.gz"),
    "tabs": lambda f: written(f, retold("\t"), "log.tsv"),
    "semicolons": lambda f: written(f, retold(";")),
    "bars": lambda f: written(f, retold("|"), "log.txt"),
    "json lines": lambda f: written(f, json_lines(), "log.jsonl"),
    "json gzip": lambda f: written(f, gzip.compress(json_lines().encode()), "log.ndjson.gz"),
    "parquet": lambda f: parquet(f, pl.DataFrame(records())),
    "typed parquet": lambda f: parquet(f, typed()),
    "polars": lambda _: typed(),
    "lazy": lambda _: typed().lazy(),
    "pandas": lambda _: pd.DataFrame(typed().to_dicts()),
    "pandas text": lambda _: pd.DataFrame(records()),
}


def retold(delimiter: str) -> str:
    return pl.read_csv(TEXT.encode(), infer_schema=False).write_csv(separator=delimiter)


def json_lines() -> str:
    return "".join(json.dumps(record) + "\n" for record in records())


def typed() -> pl.DataFrame:
    frame = pl.DataFrame(records())
    return frame.with_columns(
        pl.col("Complete Timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S%.f"),
        pl.col("tier").cast(pl.Categorical),
    )


def parquet(folder: Path, frame: pl.DataFrame) -> Path:
    frame.write_parquet(folder / "log.parquet")
    return folder / "log.parquet"


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_gives_the_same_log(source: object, tmp_path: Path) -> None:
    log, report = read(source(tmp_path), categorical=["tier"])
    assert content(log) == expected()
    assert report.columns == {
        "case": "Case ID",
        "activity": "Activity",
        "timestamp": "Complete Timestamp",
    }
    assert (report.rows, report.events, report.cases, report.repairs) == (5, 5, 2, ())


def test_several_files_make_one_log(tmp_path: Path) -> None:
    one = written(tmp_path, HEADER + "\n".join(ROWS[:2]), "one.csv")
    two = written(tmp_path, retold(";"), "two.csv")
    two.write_text("\n".join([two.read_text().splitlines()[0], *two.read_text().splitlines()[3:]]))
    log, report = read([one, two])
    assert content(log) == expected()
    assert report.sources == (str(one), str(two))


FORMS = {
    "2024-03-04T05:06:07+02:00": "2024-03-04T03:06:07",
    "2024-03-04T05:06:07.25Z": "2024-03-04T05:06:07.25",
    "2024-03-04 05:06:07 +0100": "2024-03-04T04:06:07",
    "2024-03-04 05:06:07 UTC": "2024-03-04T05:06:07",
    "2024-03-04T05:06": "2024-03-04T05:06:00",
    "2024-03-04": "2024-03-04T00:00:00",
    "2024/03/04 05:06:07": "2024-03-04T05:06:07",
    "20240304": "2024-03-04T00:00:00",
    "20240304050607": "2024-03-04T05:06:07",
    "1709528767": "2024-03-04T05:06:07",
    "1709528767.5": "2024-03-04T05:06:07.5",
    "1709528767001": "2024-03-04T05:06:07.001",
    "1709528767000001": "2024-03-04T05:06:07.000001",
    "24.03.2024 05:06": "2024-03-24T05:06:00",
    "24/03/2024 05:06:07.5": "2024-03-24T05:06:07.5",
    "03/24/2024 05:06 PM": "2024-03-24T17:06:00",
}


@pytest.mark.parametrize(("written_as", "meaning"), FORMS.items(), ids=FORMS)
def test_timestamps_of_every_form(written_as: str, meaning: str, tmp_path: Path) -> None:
    log, _ = read(written(tmp_path, f"case,activity,time\nx,a,{written_as}\n"))
    assert log.time_us is not None
    moment = datetime.fromisoformat(meaning).replace(tzinfo=UTC)
    assert log.time_us[0] == round(moment.timestamp() * 1e6)


def test_the_whole_column_decides_between_day_and_month(tmp_path: Path) -> None:
    path = written(tmp_path, "case,activity,date\nx,a,01/02/2024\nx,b,03/02/2024\nx,c,31/03/2024\n")
    log, _ = read(path)
    assert log.activities.names().tolist() == ["a", "b", "c"]
    days = [datetime.fromtimestamp(t / 1e6, UTC).date().isoformat() for t in log.time_us]
    assert days == ["2024-02-01", "2024-02-03", "2024-03-31"]
    written(tmp_path, "case,activity,date\nx,a,01/02/2024\n")
    assert read(path, time_format="%d/%m/%Y")[0].time_us[0] == 1_706_745_600_000_000


def rows(*changed: str) -> str:
    """Return a log of 100 good rows and some others, the first of them in row 102."""
    good = [f"c{i % 9},open,2024-01-01 00:{i // 60:02d}:{i % 60:02d},gold,{i}" for i in range(100)]
    return HEADER + "\n".join([*good, *changed]) + "\n"


REPAIRED = {
    "bad_fields": (["x,open"], 1, ["row 102"]),
    "bad_time": (["x,open,noon,gold,1", "x,open,never,gold,1"], 2, ["row 102", "row 103"]),
    "no_time": (["x,open,,gold,1"], 1, ["row 102"]),
    "no_case": ([" ,open,2024-01-01,gold,1"], 1, ["row 102"]),
    "no_activity": (["x,,2024-01-01,gold,1"], 1, ["row 102"]),
    "blank": (["", "x,open,2024-01-01,gold,1"], 1, ["row 102"]),
    "trimmed": (["x, open,2024-01-01,gold,1"], 1, ["row 102"]),
    "unordered": (["x,b,2024-01-02,,1", "x,a,2024-01-01,,1"], 1, ["row 103"]),
    "equal_times": (["x,b,2024-01-01,,1", "x,a,2024-01-01,,1"], 1, ["row 103"]),
    "duplicates_kept": (["x,b,2024-01-01,,1"] * 2, 1, ["row 103"]),
    "bad_number": (["x,b,2024-01-01,,12 Euro"], 1, ["row 102"]),
    "infinite": (["x,b,2024-01-01,,inf"], 1, ["row 102"]),
}


@pytest.mark.parametrize("code", REPAIRED)
def test_every_repair_is_counted_with_its_rows(code: str, tmp_path: Path) -> None:
    changed, count, places = REPAIRED[code]
    _, report = read(written(tmp_path, rows(*changed)))
    repair = report.repair(code)
    assert repair is not None
    assert repair.count == count
    assert [place for place in repair.rows if int(place.split()[1]) > 101] == places
    assert repair.sentence.startswith(f"{count} ")
    assert report.rows == 100 + len(changed) - (code == "blank")


def test_rows_after_a_multiline_field_keep_their_number(tmp_path: Path) -> None:
    text = rows('x,"a\nb\nc",2024-01-01,gold,1', "bad", "y,open,2024-01-01,gold,1")
    log, report = read(written(tmp_path, text))
    assert report.repair("bad_fields").rows == ("row 103",)
    assert "a\nb\nc" in log.activities.labels
    assert report.events == 102


def test_equal_times_keep_the_order_of_the_file_and_duplicates_go_if_asked(tmp_path: Path) -> None:
    lines = ["x,b,2024-01-01,,1", "x,a,2024-01-01,,1", "x,b,2024-01-01,,1", "x,b,2024-01-01,gold,1"]
    path = written(tmp_path, HEADER + "\n".join(lines))
    assert read(path, numeric=["cost"])[0].activities.names().tolist() == ["b", "a", "b", "b"]
    log, report = read(path, drop_duplicates=True)
    assert log.activities.names().tolist() == ["b", "a", "b"]
    assert report.repair("duplicates").rows == ("row 4",)


def test_rows_of_several_files_are_named_with_their_file(tmp_path: Path) -> None:
    one = written(tmp_path, rows(), "one.csv")
    two = written(tmp_path, rows("z,open,later,gold,1"), "two.csv")
    _, report = read([one, two])
    assert report.repair("bad_time").rows == (f"{two} row 102",)
    assert report.repair("bad_time").examples == ("'later'",)


def test_types_are_told_from_all_values(tmp_path: Path) -> None:
    head = "case,activity,time,amount,user_id,flag,note,always,started,never,code\n"
    lines = [
        f"c{i // 4},a,2024-01-01 00:00:{i % 60:02d},{i}.5,{i % 3 + 100},{i % 2},free text {i},1,"
        f"2024-01-01,,{'x' if i == 399 else i % 7}"
        for i in range(400)
    ]
    log, report = read(written(tmp_path, head + "\n".join(lines)))
    assert set(log.categorical) == {"activity", "user_id", "flag", "code"}
    assert set(log.numeric) == {"amount"}
    assert set(report.dropped) == {"note", "always", "started", "never"}
    assert "free text" in report.dropped["note"]
    assert "same value" in report.dropped["always"]
    assert "holds times" in report.dropped["started"]
    forced, _ = read(tmp_path / "log.csv", numeric=["user_id"], categorical=["note"])
    assert "user_id" in forced.numeric
    assert len(forced.categorical["note"].labels) == 400


def test_attributes_can_be_chosen(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    assert set(read(path, attributes=())[0].categorical) == {"Activity"}
    assert set(read(path, exclude=["tier"])[0].numeric) == {"cost"}
    assert read(path, case="activity", activity="Case ID")[0].case == "Activity"


def test_a_log_without_times_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "case,activity\nb,1\na,2\nb,3\n")
    log, report = read(path, with_times=False)
    assert log.time_us is None
    assert log.case_ids.tolist() == ["b", "a"]
    assert log.activities.names().tolist() == ["1", "3", "2"]
    assert report.details["times"] == "none: order of the file"


def test_one_trace_a_line(tmp_path: Path) -> None:
    lines = ['7,"<BOS>, a, b c, a, <EOS>",3', '8,"<BOS>, <EOS>",0', '9,"<BOS>, b c, <EOS>",2']
    log, report = read(written(tmp_path, "CaseID,trace,length\n" + "\n".join(lines)))
    assert log.case_ids.tolist() == ["7", "9"]
    assert log.activities.names().tolist() == ["a", "b c", "a", "b c"]
    assert log.time_us is None
    assert report.repair("empty_case").rows == ("row 3",)
    assert report.repair("wrong_length").rows == ("row 4",)
    assert not report.dropped


def test_other_encodings_are_read_when_named(tmp_path: Path) -> None:
    text = HEADER + "x,Prüfung,2024-01-01,gold,1\nx,zurück,2024-01-02,tin,2\n"
    for encoding in ("latin-1", "cp1252", "utf-16"):
        log, _ = read(written(tmp_path, text.encode(encoding)), encoding=encoding)
        assert log.activities.labels == ("Prüfung", "zurück")


def test_parts_are_read_as_one_log_with_its_split(tmp_path: Path) -> None:
    train = written(tmp_path, "case,activity\n" + "".join(f"t{i},a\n" for i in range(20)), "a.csv")
    test = written(tmp_path, "case,activity\n" + "".join(f"u{i},b\n" for i in range(5)), "b.csv")
    log, _, split = read_parts(train, test, with_times=False)
    names = [log.case_ids[part].tolist() for part in (split.train, split.validation, split.test)]
    assert names[0] == [f"t{i}" for i in range(18)]
    assert names[1] == ["t18", "t19"]
    assert names[2] == [f"u{i}" for i in range(5)]
    own = read_parts(
        train, test, written(tmp_path, "case,activity\nv,a\n", "c.csv"), with_times=False
    )
    assert own[0].case_ids[own[2].validation].tolist() == ["v"]
    with pytest.raises(DataError, match="t0"):
        read_parts(train, train, with_times=False)


REFUSED: dict[str, tuple[object, dict, tuple[str, str]]] = {
    "no such file": (lambda f: f / "none.csv", {}, ("No such file", "Check the path")),
    "a folder": (lambda f: f, {"format": "csv"}, ("directory", "Check the path")),
    "unknown ending": (lambda f: written(f, TEXT, "log.xlsx"), {}, ("log.xlsx", "--format")),
    "empty": (lambda f: written(f, ""), {}, ("empty", "Export")),
    "header only": (lambda f: written(f, HEADER), {}, ("no events", "Check")),
    "no case": (lambda f: written(f, "who,activity,time\na,b,2024-01-01\n"), {},
                ("No case column", "--case")),
    "no activity": (lambda f: written(f, "case,what,time\na,b,2024-01-01\n"), {},
                    ("case, what, time", "--activity")),
    "no timestamp": (lambda f: written(f, "case,activity,x\na,b,1\n"), {},
                     ("No timestamp column", "--no-timestamp")),
    "given name absent": (lambda f: written(f, TEXT), {"case": "Case IT"},
                          ("Did you mean Case ID", "--case")),
    "attribute absent": (lambda f: written(f, TEXT), {"exclude": ["tear"]},
                         ("Did you mean tier", "correct its name")),
    "name twice": (lambda f: written(f, "case,case,activity\na,b,c\n"), {},
                   ("called case", "Rename")),
    "one column": (lambda f: written(f, "case\na\n"), {}, ("one column", "--delimiter")),
    "latin-1": (lambda f: written(f, (HEADER + "x,Prüfung,2024-01-01,,1\n").encode("cp1252")), {},
                ("offset 50 (about row 2)", "--encoding cp1252")),
    "utf-16": (lambda f: written(f, TEXT.encode("utf-16")), {}, ("utf-16", "--encoding utf-16")),
    "wrong encoding given": (lambda f: written(f, "case,activity\nx,ü\n"), {"encoding": "ascii"},
                             ("not ascii", "--encoding")),
    "no such encoding": (lambda f: written(f, TEXT), {"encoding": "utf-9"},
                         ("utf-9", "--encoding")),
    "no such format": (lambda f: written(f, TEXT), {"format": "cvs"},
                       ("Did you mean csv", "--format")),
    "no such option": (lambda f: written(f, TEXT), {"delimeter": ";"},
                       ("Did you mean delimiter", "Correct")),
    "long delimiter": (lambda f: written(f, TEXT), {"delimiter": "::"}, ("2 bytes", "one such")),
    "too many bad rows": (lambda f: written(f, rows(*["x,open,noon,gold,1"] * 6)), {},
                          ("6 of 106 rows cannot be used. 6 rows with an unreadable timestamp",
                           "--allow-bad-rows")),
    "open quote": (lambda f: written(f, HEADER + 'x,"open,2024-01-01,gold,1\n'), {},
                   ("never closed", "quote=''")),
    "ambiguous dates": (lambda f: written(f, "case,activity,date\nx,a,01/02/2024\n"), {},
                        ("'01/02/2024'", "--time-format")),
    "half a time format": (lambda f: written(f, TEXT), {"time_format": "%Y-%m-%d %H"},
                           ("cannot be used", "--time-format")),
    "bad time format": (lambda f: written(f, TEXT), {"time_format": "%Q"},
                        ("unreadable timestamp", "--time-format")),
    "damaged gzip": (lambda f: written(f, gzip.compress(TEXT.encode())[:40], "log.csv.gz"), {},
                     ("damaged", "Copy")),
    "json array": (lambda f: written(f, json.dumps(records()), "log.json"), {},
                   ("JSON array", "jq")),
    "no json": (lambda f: written(f, TEXT, "log.jsonl"), {},
                ("no JSON object", "--allow-bad-rows")),
    "no parquet": (lambda f: written(f, TEXT, "log.parquet"), {}, ("Parquet", "--format")),
    "no file at all": (lambda _: [], {}, ("No file", "Name")),
    "only bad rows allowed": (lambda f: written(f, HEADER + "x,open,noon,,\n"),
                              {"allow_bad_rows": True}, ("no event is left", "unreadable")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_log_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    source, options, (wrong, remedy) = REFUSED[name]
    with pytest.raises((DataError, UsageError)) as caught:
        read(source(tmp_path), **options)
    assert wrong in caught.value.wrong
    assert caught.value.expected
    assert remedy in caught.value.remedy


def test_too_many_bad_rows_can_be_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, rows(*["x,open,noon,gold,1"] * 60))
    assert read(path, allow_bad_rows=True)[1].repair("bad_time").count == 60


def test_json_lines_count_what_they_cannot_hold(tmp_path: Path) -> None:
    lines = [json.dumps({"case": f"c{i}", "activity": "a", "time": i}) for i in range(60)]
    lines += [
        '{"case": "x", "activity": true, "time": 5, "more": {"a": 1}, "late": "y"}',
        "[1]",
        "",
    ]
    log, report = read(written(tmp_path, "\n".join(lines), "log.jsonl"))
    assert report.repair("bad_record").rows == ("row 62",)
    assert report.repair("nested").examples == ("'more'",)
    assert "true" in log.activities.labels
    assert log.categorical["late"].names().tolist().count("y") == 1
