"""`compare` and `tune`: killed, stopped, continued, and refused in words."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars
import pytest

from hiddenstate.study import runs
from tests.journeys import logs
from tests.journeys.calling import call

TINY = (
    "--set problems.sequences=16 --set problems.validation_sequences=8 "
    "--set problems.test_sequences=10 --epochs 2"
)
COMPARE = (
    "compare problem:parity:length=1-6 --cells elman,gru --lengths 6,12 --seeds 2 --budget 400 "
    f"--out compared {TINY}"
)


def gone(group: int, within_s: float = 20) -> bool:
    """Whether no process of a group is left, zombies of this process aside."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return True
        time.sleep(0.05)
    return False


def test_a_killed_comparison_leaves_whole_rows_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hiddenstate", *shlex.split(COMPARE), "--processes", "2"]
    parent = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL
    )
    fits = tmp_path / "compared" / "fits"
    until = time.monotonic() + 120
    while not list(fits.glob("*.parquet")) and time.monotonic() < until:
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(parent.pid), "the fits went on without their parent"
    kept = {path: path.stat().st_mtime_ns for path in fits.glob("*.parquet")}
    assert kept
    assert all(polars.read_parquet(path).height == 2 for path in kept)

    done = call(f"{COMPARE} --json", tmp_path)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    found = json.loads(done.out)
    assert {(row["length"], row["cell"], row["seeds"]) for row in found["scores"]} == {
        (length, cell, 2) for length in (6, 12) for cell in ("elman", "gru")
    }
    assert polars.read_parquet(tmp_path / "compared" / "results.parquet").height == 8
    shown = call(COMPARE, tmp_path)
    assert "4 of 4 fits are there already" in shown.err
    for said in ("6", "12*", "floor: guess", "Paired t-test over seeds", "bytes kept at 12"):
        assert said in shown.out


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = runs.fitted_rows, []

    def stopped(fit: Any) -> Any:
        made.append(fit)
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(fit)

    monkeypatch.setattr(runs, "fitted_rows", stopped)
    done = call(COMPARE, tmp_path)
    assert done.code == 1
    assert "the same command goes on" in done.err
    assert len(list((tmp_path / "compared" / "fits").iterdir())) == 1
    assert not (tmp_path / "compared" / "results.parquet").exists()


def test_text_is_compared_by_symbols_read(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog too. " * 30)
    command = "compare text.txt --task lm --cells gru,attention --seeds 1 --budget 6000 --epochs 1"
    done = call(f"{command} --out compared", tmp_path)
    assert done.code == 0, done.err
    for said in ("nats per symbol", "33-64", "floor:", "past shuffled", "Order of the past:"):
        assert said in done.out


def test_event_logs_are_compared_by_events_seen(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(logs.csv())
    command = (
        "compare log.csv --cells gru,attention --lengths 2,4,100 --seeds 2 --budget 3000 "
        "--epochs 2 --out compared --json"
    )
    done = call(command, tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {row["metric"] for row in found["scores"]} == {"accuracy"}
    assert all(0 <= row["floor"] <= 1 and row["ceiling"] is None for row in found["scores"])
    assert {row["group"] for row in found["scores"]} == {"all", "2", "3-4"}
    assert {row["pairs"] for row in found["differences"]} == {2}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("compare problem:parity --lengths ten --out o", "list of lengths"),
        ("compare problem:partiy --out o", "Did you mean parity?"),
        ("compare problem:parity --cells gru,lstn --out o", "Did you mean lstm?"),
        ("compare nothing.csv --out o", "nothing.csv"),
        ("compare problem:parity --processes 0 --out o", "0 processes"),
        ("compare problem:parity --lengths 0 --out o", "at least 1"),
        ("tune problem:parity --search train.speed --out o", "train.learning_rate"),
    ],
)
def test_wrong_commands_are_refused_in_words(command: str, said: str, tmp_path: Path) -> None:
    done = call(command, tmp_path)
    assert done.code in (1, 2)
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "o").exists()


def test_a_search_goes_on_and_gives_a_recipe(tmp_path: Path) -> None:
    tune = f"tune problem:parity:length=1-6 --out searched {TINY} --search train.learning_rate"
    first = call(f"{tune} --trials 2 --json", tmp_path)
    assert first.code == 0, first.err
    more = call(f"{tune} --trials 3 --cells gru,elman", tmp_path)
    assert more.code == 2
    assert "was begun with another search" in more.err
    more = call(f"{tune} --trials 3 --json", tmp_path)
    assert more.code == 0, more.err
    trials = polars.read_parquet(tmp_path / "searched" / "trials.parquet")
    assert trials["trial"].to_list() == [0, 1, 2]
    assert trials["loss"].min() == json.loads(more.out)["loss"] <= json.loads(first.out)["loss"]
    fitted = call("fit problem:parity:length=1-6 --recipe searched/best.toml --out run", tmp_path)
    assert fitted.code == 0, fitted.err
    best = json.loads((tmp_path / "run" / "metrics.json").read_text())["training"]["best_loss"]
    assert best == pytest.approx(trials["loss"].min(), rel=1e-4)
