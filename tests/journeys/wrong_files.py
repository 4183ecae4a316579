"""Files that are no log, or not one that can be learnt from."""

from __future__ import annotations

import gzip
from collections import Counter

from tests.journeys import logs
from tests.journeys.wrong import FIT, LOG, QUICK, Wrong, change

XES_ENTITY = (
    '<?xml version="1.0"?>\n<!DOCTYPE log [<!ENTITY a "aaaa">]>\n<log><trace><event>'
    '<string key="concept:name" value="&a;"/></event></trace></log>'
)
HTML = "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body></body></html>\n"
ONE_ACTIVITY = change(lambda _, fields: [fields[0], "only", *fields[2:]])
SLASHED = change(
    lambda row, fields: [*fields[:2], f"0{row % 9 + 1}/0{row % 8 + 1}/2024 10:00", *fields[3:]]
)


def _fit(file: str, flags: str = "") -> str:
    return f"fit {file} --out out {QUICK} {flags}".strip()


def _lengths_told() -> str:
    """Return the log with a column that tells from the start how many events a case will have."""
    cases = Counter(line.split(",")[0] for line in LOG.splitlines())
    edited = change(lambda _, fields: [*fields, str(cases[fields[0]])])
    return edited.replace("channel\n", "channel,handovers\n", 1)


FILES = (
    Wrong("the file does not exist", _fit("none.csv"), ("none.csv", "path")),
    Wrong("a folder in place of a file", _fit("run"), ("run",)),
    Wrong("empty file", FIT, ("log.csv", "empty"), {"log.csv": ""}),
    Wrong("a header and no rows", FIT, ("log.csv", "no"), {"log.csv": LOG.splitlines()[0] + "\n"}),
    Wrong(
        "no case column",
        FIT,
        ("--case", "zzz"),
        {"log.csv": LOG.replace("case,", "zzz,", 1)},
    ),
    Wrong(
        "no activity column",
        FIT,
        ("--activity", "zzz"),
        {"log.csv": LOG.replace("activity", "zzz", 1)},
    ),
    Wrong(
        "no timestamp column",
        FIT,
        ("--timestamp", "--no-timestamp"),
        {"log.csv": LOG.replace("timestamp", "zzz", 1)},
    ),
    Wrong(
        "a column name that stands there twice",
        FIT,
        ("log.csv", "amount"),
        {"log.csv": LOG.replace("channel", "amount", 1)},
    ),
    Wrong(
        "the column named is not there",
        _fit("log.csv", "--activity activty"),
        ("activty", "Did you mean activity?"),
    ),
    Wrong(
        "the columns are named in another language",
        FIT,
        ("Vorgang", "--case"),
        {"log.csv": logs.csv(5, ";", ("Vorgang", "Schritt", "Zeit", "Betrag", "Kanal"))},
    ),
    Wrong(
        "half of the timestamps cannot be read",
        FIT,
        ("row 3", "'at noon'", "--time-format"),
        {"log.csv": change(lambda row, f: [*f[:2], "at noon" if row % 2 else f[2], *f[3:]])},
    ),
    Wrong(
        "no timestamp can be read",
        FIT,
        ("row 2", "--time-format"),
        {"log.csv": change(lambda _, f: [*f[:2], "Mo 3. Januar", *f[3:]])},
    ),
    Wrong(
        "days and months that cannot be told apart",
        FIT,
        ("--time-format", "day"),
        {"log.csv": SLASHED},
    ),
    Wrong("a time format that fits no row", _fit("log.csv", "--time-format %d.%m.%Y"), ("%d",)),
    Wrong("a time format that is none", _fit("log.csv", "--time-format %Q"), ("%Q",)),
    Wrong(
        "rows with too many fields",
        FIT,
        ("fields", "--allow-bad-rows"),
        {"log.csv": change(lambda row, f: [*f, "x", "y"] if row % 3 == 0 else f)},
    ),
    Wrong(
        "a quote that is never closed",
        FIT,
        ("log.csv", "quote"),
        {"log.csv": LOG.replace("triage", '"triage', 1)},
    ),
    Wrong(
        "another encoding",
        FIT,
        ("UTF-8", "--encoding"),
        {"log.csv": LOG.replace("triage", "prüfung").encode("latin-1")},
    ),
    Wrong(
        "an encoding that does not exist",
        _fit("log.csv", "--encoding utf9"),
        ("utf9", "--encoding"),
        code=2,
    ),
    Wrong("UTF-16 read as UTF-8", FIT, ("--encoding",), {"log.csv": LOG.encode("utf-16")}),
    Wrong("a delimiter of two characters", _fit("log.csv", "--delimiter ';;'"), (";;",), code=2),
    Wrong(
        "a delimiter that is not the file's", _fit("log.csv", "--delimiter ';'"), ("--delimiter",)
    ),
    Wrong("no text at all", FIT, ("log.csv", "no text"), {"log.csv": bytes(range(256)) * 40}),
    Wrong(
        "a spreadsheet called .csv", FIT, ("Excel", "CSV"), {"log.csv": b"PK\x03\x04" + bytes(999)}
    ),
    Wrong("a web page called .csv", FIT, ("html", "one column"), {"log.csv": HTML}),
    Wrong(
        "an ending nobody knows",
        _fit("log.xlsx"),
        ("log.xlsx", "--format"),
        {"log.xlsx": b"PK\x03\x04" + bytes(99)},
    ),
    Wrong(
        "gzip that was cut off",
        _fit("log.csv.gz"),
        ("log.csv.gz",),
        {"log.csv.gz": gzip.compress(LOG.encode())[:200]},
    ),
    Wrong("not Parquet", _fit("log.parquet"), ("log.parquet",), {"log.parquet": LOG}),
    Wrong(
        "broken JSON lines",
        _fit("log.jsonl"),
        ("log.jsonl", "row 1", "--format"),
        {"log.jsonl": '{"case": "a"\n' * 9},
    ),
    Wrong("broken XES", _fit("log.xes"), ("log.xes",), {"log.xes": "<log><trace><event>"}),
    Wrong("XES that declares entities", _fit("log.xes"), ("entit",), {"log.xes": XES_ENTITY}),
    Wrong(
        "one activity only",
        f"{FIT} --task occurs:only",
        ("occurs:only", "two classes"),
        {"log.csv": ONE_ACTIVITY},
    ),
    Wrong(
        "a column that gives the answer away",
        FIT,
        ("handovers", "--exclude", "--allow-leaks"),
        {"log.csv": _lengths_told()},
    ),
    Wrong("too few cases", FIT, ("cases",), {"log.csv": "\n".join(LOG.splitlines()[:5])}),
    Wrong(
        "every row a case of its own",
        FIT,
        ("--case",),
        {"log.csv": change(lambda row, f: [f"r{row}", *f[1:]])},
    ),
)
