"""Signals that are none, that lack something, or that a forecaster cannot be fitted to."""

from __future__ import annotations

from collections.abc import Callable

from tests.journeys.wrong import QUICK, Wrong

SMALL = "--hidden-size 4 --set series.horizon=4 --set series.context=24 --set series.base=level"


def signal(steps: int = 240) -> str:
    rows = [
        f"2024-01-{1 + k // 24:02d} {k % 24:02d}:00,{(k * 7) % 24}.5,{k % 5}" for k in range(steps)
    ]
    return "\n".join(["date,load,wind", *rows]) + "\n"


def roll(pieces: int = 8, steps: int = 6) -> str:
    rows = [f"{p},{(p + k) % 2},{k % 2}" for p in range(pieces) for k in range(steps)]
    return "\n".join(["series,low,high", *rows]) + "\n"


def edited(edit: Callable[[int, str], str], steps: int = 240) -> dict[str, str | bytes]:
    head, *rows = signal(steps).splitlines()
    return _of("\n".join([head, *(edit(k, row) for k, row in enumerate(rows))]) + "\n")


def _fit(flags: str = "", task: str = "forecast", file: str = "signal.csv") -> str:
    return f"fit {file} --task {task} --out out {QUICK} {SMALL} {flags}".strip()


def _of(content: str | bytes) -> dict[str, str | bytes]:
    return {"signal.csv": content}


SERIES = (
    Wrong("a signal that does not exist", _fit(), ("signal.csv", "path")),
    Wrong("an empty signal", _fit(), ("signal.csv", "has no"), _of("date,load\n")),
    Wrong(
        "a signal without numbers",
        _fit(),
        ("no column of numbers", "--delimiter"),
        _of("date,load\n2024-01-01,high\n2024-01-02,low\n"),
    ),
    Wrong(
        "a time that cannot be read",
        _fit(),
        ("'soon' in row 12", "'date'", "--time-format"),
        _of(signal().replace("2024-01-01 10:00", "soon")),
    ),
    Wrong(
        "a time column that is not there",
        _fit("--timestamp when"),
        ("'when'", "date, load, wind", "--no-timestamp"),
        _of(signal()),
    ),
    Wrong(
        "two rows for one moment",
        _fit(),
        ("other values", "rows 12 and 13", "--case"),
        _of(signal().replace("01-01 11:00", "01-01 10:00")),
    ),
    Wrong(
        "a channel that is not there",
        _fit("--attributes load,win"),
        ("win", "Did you mean wind?"),
        _of(signal()),
    ),
    Wrong(
        "a channel of text that is asked for",
        _fit("--attributes load,site"),
        ("'site'", "text", "'A' in row 2"),
        _of(signal().replace("wind", "site").replace("\n", ",A\n").replace("site,A", "wind,site")),
    ),
    Wrong(
        "a channel without a value in training",
        _fit(),
        ("no value in the training part: wind",),
        edited(lambda k, row: row if k > 200 else row.rpartition(",")[0] + ","),
    ),
    Wrong(
        "a target that is not there",
        _fit("--set 'series.targets=[\"heat\"]'"),
        ("heat", "load, wind"),
        _of(signal()),
    ),
    Wrong(
        "a signal too short for the horizon",
        _fit("--set series.horizon=60"),
        ("validation part", "horizon of 60", "history"),
        _of(signal()),
    ),
    Wrong(
        "rows that are not there",
        _fit("--set series.rows=[200,30,30]"),
        ("200, 30, 30", "240 rows"),
        _of(signal()),
        code=2,
    ),
    Wrong(
        "a forecast of both directions",
        _fit("--set model.bidirectional=true"),
        ("bidirectional", "later"),
        _of(signal()),
        code=2,
    ),
    Wrong(
        "quantiles step by step",
        _fit("--set series.mode=recursive"),
        ("recursive", "gaussian or point"),
        _of(signal()),
        code=2,
    ),
    Wrong(
        "a horizon of nothing",
        _fit("--set series.horizon=0"),
        ("series.horizon = 0", "greater than or equal to 1"),
        _of(signal()),
        code=2,
    ),
    Wrong(
        "an activity of a signal",
        _fit("--activity load"),
        ("activity", "forecast", "Leave activity out"),
        _of(signal()),
        code=2,
    ),
    Wrong(
        "an archive that is none",
        _fit(file="signal.npz"),
        ("signal.npz", "archive"),
        {"signal.npz": b"PK nothing"},
    ),
    Wrong(
        "a .mat file cut short",
        _fit("", "next_frame", "roll.mat"),
        ("roll.mat", "MATLAB"),
        {"roll.mat": b"MATLAB 5.0 MAT-file"},
    ),
    Wrong(
        "frames that are numbers",
        _fit("", "next_frame"),
        ("not 0 or 1", "3", "--task forecast"),
        _of(roll().replace("\n3,", "\n3,3", 1)),
    ),
    Wrong(
        "rows for frames",
        _fit("", "next_frame") + " --set series.rows=[10,5,5]",
        ("series.rows", "whole series"),
        _of(roll()),
        code=2,
    ),
    Wrong(
        "frames that stand in one series",
        _fit("", "next_frame"),
        ("none to train on", "At least one series"),
        _of("beat,low,high\n" + "".join(f"{n},{n % 2},1\n" for n in range(40))),
    ),
    Wrong(
        "frames with a gap",
        _fit("", "next_frame"),
        ("a missing value", "step 6 of high"),
        _of(roll().replace("0,1,1\n1,", "0,1,\n1,", 1)),
    ),
)
