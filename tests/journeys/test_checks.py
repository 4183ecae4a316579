"""`hiddenstate fit` looks on while it trains: a warning once, in words, and the same model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.journeys import logs
from tests.journeys.calling import call

FIT = "fit log.csv --threads 1 --hidden-size 8 --epochs 40 --set train.finish_epochs=1"
TIGHT = "--set train.clip_norm=0.001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(logs.csv())
    return tmp_path


def fingerprint(run: Path) -> str:
    return str(json.loads((run / "manifest.json").read_text())["fingerprint"])


def test_a_training_that_is_clipped_all_the_time_is_told_once(folder: Path) -> None:
    done = call(f"{FIT} {TIGHT} --out run", folder)
    assert done.code == 0, done.err
    told = [line for line in done.err.splitlines() if "HS502" in line]
    assert len(told) == 1
    assert told[0].startswith("Epoch ")
    assert "times the limit of 0.001" in told[0]
    assert "Try: Raise the limit" in told[0]
    assert "HS502" not in done.out


@pytest.mark.parametrize("flag", ["--no-checks", "--quiet"])
def test_checks_can_be_left_out_and_change_nothing(folder: Path, flag: str) -> None:
    with_checks = call(f"{FIT} {TIGHT} --out one", folder)
    without = call(f"{FIT} {TIGHT} --out two {flag}", folder)
    assert (with_checks.code, without.code) == (0, 0)
    assert "HS502" not in without.err
    assert fingerprint(folder / "one") == fingerprint(folder / "two")


def test_a_training_that_goes_well_is_not_remarked_on(folder: Path) -> None:
    done = call(f"{FIT} --out run", folder)
    assert done.code == 0, done.err
    assert "HS" not in done.err
