"""Signals by the command line: fitted, scored beside the floors, forecast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.journeys.calling import call, run
from tests.journeys.wrong_series import SMALL, roll, signal

QUICK = f"--epochs 2 --threads 1 {SMALL}"
FLOORS = {"last_value", "day", "linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with signals and two models."""
    folder = tmp_path_factory.mktemp("series")
    (folder / "signal.csv").write_text(signal(480))
    (folder / "roll.csv").write_text(roll())
    for name, task in (("signal", "forecast"), ("roll", "next_frame")):
        done = call(f"fit {name}.csv --task {task} --out {name} {QUICK} --quiet", folder)
        assert done.code == 0, done.err
    return folder


def test_a_forecast_in_processes(tmp_path: Path) -> None:
    (tmp_path / "signal.csv").write_text(signal(480))
    fitted = run(f"fit signal.csv --task forecast --out run {QUICK}", tmp_path)
    assert fitted.code == 0, fitted.err
    for words in (
        "same time yesterday",
        "linear model",
        "mean squared error",
        "inside the interval",
    ):
        assert words in " ".join(fitted.out.split())
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert "in time: 336 / 48 / 96 rows train / validate / test" in card
    told = run("predict run signal.csv --out next.csv", tmp_path)
    assert told.code == 0, told.err
    table = pl.read_csv(tmp_path / "next.csv", try_parse_dates=True)
    assert table.columns[:4] == ["step", "time", "load", "load 0.1"]
    assert table["time"][0].isoformat().startswith("2024-01-21T00:00")
    assert table.height == 4


def test_scores_stand_beside_their_floors(folder: Path) -> None:
    done = call("evaluate signal signal.csv --json --bootstrap 100", folder)
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    assert set(scores["floors"]) == FLOORS
    assert all(floor["mse"] >= 0 for floor in scores["floors"].values())
    low, high = scores["mse_interval"]
    assert low <= scores["mse"] <= high
    task = scores["tasks"]["forecast"]
    assert [each["from"] for each in task["model"]["by_length"]] == [1, 2, 3]
    assert set(task["channels"]) == {"load", "wind"}
    frames = call("evaluate roll roll.csv --bootstrap 100", folder)
    assert frames.code == 0, frames.err
    assert "nats per frame" in frames.out
    assert "value before" in frames.out


def test_the_file_to_predict_may_have_other_columns_and_order(folder: Path) -> None:
    head, *rows = signal(480).splitlines()
    del head
    swapped = [",".join([row.split(",")[2], "x", *row.split(",")[:2]]) for row in rows]
    (folder / "other.csv").write_text("\n".join(["wind,site,date,load", *swapped]) + "\n")
    one, two = (call(f"predict signal {name}.csv --json", folder) for name in ("signal", "other"))
    assert one.code == two.code == 0, two.err
    assert one.out == two.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("predict signal part.csv", ("lacks 1 of 2 channels: wind",)),
        ("predict signal untimed.csv", ("'date'", "--timestamp")),
        ("evaluate signal short.csv", ("20 steps", "24 steps of history")),
        ("predict signal signal.csv --activity load", ("activity",)),
        ("evaluate roll signal.csv", ("lacks 2 of 2 channels",)),
    ],
)
def test_sources_that_do_not_fit_a_model(
    folder: Path, command: str, words: tuple[str, ...]
) -> None:
    (folder / "part.csv").write_text("date,load\n2024-01-01 00:00,1\n2024-01-01 01:00,2\n")
    (folder / "untimed.csv").write_text("load,wind\n1,2\n2,3\n")
    (folder / "short.csv").write_text(signal(20))
    done = call(command, folder)
    assert done.code in (1, 2)
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err


def test_predicting_loads_no_torch(folder: Path) -> None:
    program = (
        "import sys, hiddenstate\n"
        "hiddenstate.load('signal').predict('signal.csv')\n"
        "hiddenstate.load('roll').evaluate('roll.csv')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
