"""A fit whose held-back cases, or some of them, have only answers that training never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.journeys.calling import call

CASES = 60
SMALL = "--epochs 1 --hidden-size 4"


def rows(case: int, activities: list[str], ruling: str) -> list[str]:
    return [
        f"c{case},{activity},{1_700_000_000 + 3600 * case + 60 * place},{ruling}"
        for place, activity in enumerate(activities)
    ]


def write(folder: Path, *, late_activities: list[str], late_ruling: str) -> None:
    rng = np.random.default_rng(0)
    lines = ["case,activity,timestamp,ruling"]
    for case in range(CASES):
        middle = [str(name) for name in rng.choice(["b", "c"], 3)]
        late = case == CASES - 1
        ruling = late_ruling if case >= 0.8 * CASES else str(rng.choice(["good", "bad"]))
        lines += rows(case, ["a", *middle, "d", *(late_activities if late else [])], ruling)
    (folder / "log.csv").write_text("\n".join(lines) + "\n")


def strict(text: str) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read: dict[str, object] = json.loads(text, parse_constant=refuse)
    return read


def test_a_length_without_a_known_answer_has_an_empty_score(tmp_path: Path) -> None:
    write(tmp_path, late_activities=["new"] * 12, late_ruling="good")
    fitted = call(f"fit log.csv --out run {SMALL} --exclude ruling", tmp_path)
    assert fitted.code == 0, fitted.err
    assert "9-16" in fitted.out
    assert "nan" not in fitted.out
    again = call("evaluate run log.csv --json", tmp_path)
    assert again.code == 0, again.err
    task = strict(again.out)["tasks"]["next_event"]  # type: ignore[index]
    bucket = next(part for part in task["model"]["by_length"] if part["from"] == 9)
    assert bucket["metrics"]["log_loss"] == {"value": None, "low": None, "high": None}
    assert bucket["metrics"]["accuracy"]["value"] == 0


@pytest.mark.parametrize("more", ["", "--shuffle"])
def test_a_log_without_a_known_answer_is_told_of_in_words(tmp_path: Path, more: str) -> None:
    write(tmp_path, late_activities=[], late_ruling="new")
    fitted = call(f"fit log.csv --out run {SMALL} --task outcome:column=ruling", tmp_path)
    assert fitted.code == 0, fitted.err
    text = "\n".join((tmp_path / "log.csv").read_text().splitlines()[:1])
    late = [line for line in (tmp_path / "log.csv").read_text().splitlines() if ",new" in line]
    (tmp_path / "late.csv").write_text("\n".join([text, *late]) + "\n")
    scores = strict(call(f"evaluate run late.csv {more} --json", tmp_path).out)
    assert scores["log_loss"] is None
    assert scores["log_loss_interval"] == [None, None]
    shown = call(f"evaluate run late.csv {more}", tmp_path)
    assert shown.code == 0, shown.err
    for told in (shown.out, (tmp_path / "run" / "MODEL_CARD.md").read_text()):
        assert "No log loss to compare with the n-gram: no event with a known answer." in told
        assert "nan" not in told
        assert "None" not in told
    if more:
        assert "log loss (nats): no event with a known answer" in shown.out


def test_the_score_of_a_single_case_has_no_interval(tmp_path: Path) -> None:
    write(tmp_path, late_activities=[], late_ruling="good")
    assert call(f"fit log.csv --out run {SMALL} --exclude ruling", tmp_path).code == 0
    header, *events = (tmp_path / "log.csv").read_text().splitlines()
    own = [line for line in events if line.startswith("c7,")]
    (tmp_path / "one.csv").write_text("\n".join([header, *own]) + "\n")
    assert strict(call("evaluate run one.csv --json", tmp_path).out)["accuracy_interval"] == [
        None,
        None,
    ]
    shown = call("evaluate run one.csv --shuffle", tmp_path).out
    assert "too few cases to tell (1)" in shown
    assert "(one case, so no interval)" in shown
