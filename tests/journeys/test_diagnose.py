"""`hiddenstate diagnose`: what it prints and writes, and the exit codes that others build on.

What is examined is made by hand here but for one run; the rules have tests of their own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hiddenstate.diagnose.finding import CATALOGUE
from hiddenstate.diagnose.report import Report
from hiddenstate.errors import DataError
from tests.journeys import logs
from tests.journeys.calling import call
from tests.unit.made_reports import made_report

ERRORS, NOTES, NOTHING = "errors", "notes", "nothing"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the examination of a run, and keep what it was asked."""
    calls: list[dict[str, Any]] = []

    def diagnose(run: Path, source: str | None = None, **options: Any) -> Report:
        options.pop("observer")("6 sequences were read")
        calls.append({"run": run, "source": source, **options})
        if run.name == "damaged":
            raise DataError("It is damaged.", "A whole one was expected.", "Fit it again.")
        report = made_report(healthy=run.name != ERRORS)
        return Report("x", {}, () if run.name == NOTHING else report.findings, report.skipped)

    stand_in = ModuleType("hiddenstate.job.diagnosis")
    stand_in.diagnose = diagnose  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    return calls


def test_a_fitted_run_is_examined_on_what_was_held_back(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(logs.csv(60))
    fitted = call("fit log.csv --out run --epochs 1 --hidden-size 8 --threads 1", tmp_path)
    assert fitted.code == 0, fitted.err
    done = call("diagnose run --html report.html --json --fail-on never", tmp_path)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    asked = len(told["passed"]) + len({each["code"] for each in told["findings"]})
    assert asked > 30
    assert asked + len(told["skipped"]) == len(CATALOGUE)
    assert "test part of log.csv" in told["facts"]["data"]
    page = (tmp_path / "report.html").read_text()
    for shown in ("Layer stack.layers.0", "State h", "Gate z", "Memory by lag", ">solve</span>"):
        assert shown in page, shown
    assert len(page) < 1_000_000


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("run", "fail_on", "code"),
    [
        (ERRORS, None, 3),
        (ERRORS, "error", 3),
        (ERRORS, "warning", 3),
        (ERRORS, "never", 0),
        (NOTES, None, 0),
        (NOTES, "warning", 0),
        (NOTES, "note", 3),
        (NOTES, "never", 0),
        (NOTHING, "note", 0),
    ],
)
def test_the_exit_code_says_whether_something_so_bad_was_found(
    tmp_path: Path, run: str, fail_on: str | None, code: int
) -> None:
    flag = "" if fail_on is None else f" --fail-on {fail_on}"
    assert call(f"diagnose {run}{flag}", tmp_path).code == code


@pytest.mark.usefixtures("asked")
def test_the_summary_is_the_report_in_words(tmp_path: Path) -> None:
    done = call("diagnose errors", tmp_path)
    lines = done.out.splitlines()
    assert lines[0] == "Not healthy: 2 errors, 1 warning, 1 note (3 rules asked)."
    assert [line for line in lines if line.startswith(("ERROR", "WARNING", "NOTE"))] == [
        "ERROR HS101 padding-leak",
        "WARNING HS202 memory-fades",
        "NOTE HS303 gates-shut",
    ]
    assert "HS201: no loss was given" in done.out
    assert done.err.strip() == "6 sequences were read"
    assert call("diagnose errors --quiet", tmp_path).err == ""


@pytest.mark.usefixtures("asked")
def test_json_and_a_page_come_together(tmp_path: Path) -> None:
    done = call("diagnose errors log.csv --json --html report.html", tmp_path)
    assert done.code == 3
    told = json.loads(done.out)
    assert told["worst"] == "error"
    assert [each["code"] for each in told["findings"]] == ["HS101", "HS101", "HS202", "HS303"]
    page = (tmp_path / "report.html").read_text()
    assert "Not healthy</h1>" in page
    assert "report.html" in done.err


def test_a_page_that_is_there_is_not_overwritten_unasked(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    (tmp_path / "report.html").write_text("mine")
    refused = call("diagnose errors --html report.html", tmp_path)
    assert refused.code == 2
    assert "report.html exists" in refused.err
    assert asked == []  # refused before the work
    assert (tmp_path / "report.html").read_text() == "mine"
    assert call("diagnose errors --html report.html --overwrite", tmp_path).code == 3
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_what_is_asked_for_is_handed_on(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    call("diagnose notes log.csv --rows 7 --only HS1,HS203 --ignore HS104 --seed 3", tmp_path)
    call("diagnose notes", tmp_path)
    assert asked == [
        {"run": Path("notes"), "source": "log.csv", "rows": 7, "only": ["HS1", "HS203"],
         "ignore": ["HS104"], "seed": 3},
        {"run": Path("notes"), "source": None, "rows": 64, "only": (), "ignore": (), "seed": 0},
    ]  # fmt: skip


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("diagnose", 2, "No run was given"),
        ("diagnose errors --fail-on warnings", 2, "Did you mean warning?"),
        ("diagnose errors --rows 0", 2, "--rows"),
        ("diagnose damaged", 1, "It is damaged."),
    ],
)
def test_what_is_put_together_wrongly_is_told(
    tmp_path: Path, command: str, code: int, said: str
) -> None:
    done = call(command, tmp_path)
    assert done.code == code
    assert said in done.err
    assert done.out == ""


def test_the_rules_are_listed_in_order(tmp_path: Path) -> None:
    done = call("diagnose --rules", tmp_path)
    assert done.code == 0
    codes = [line.split()[0] for line in done.out.splitlines() if line.startswith("HS")]
    assert codes == sorted(CATALOGUE)
    told = json.loads(call("diagnose --rules --json", tmp_path).out)["rules"]
    assert [each["code"] for each in told] == codes
    for each in told:
        assert each["asks"].endswith("?"), each["code"]
        assert each["because"].endswith("."), each["code"]
        assert each["remedy"].endswith("."), each["code"]
