"""Diagnosing fitted runs of every family: the right sequences, losses, scores and executions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiddenstate.diagnose.finding import CATALOGUE, Finding
from hiddenstate.errors import UsageError
from hiddenstate.job.diagnosis import diagnose
from hiddenstate.job.evidence import of_scores, spread
from hiddenstate.job.families import FAMILIES as ALL
from hiddenstate.job.families import family_of
from hiddenstate.job.fit import fit
from hiddenstate.job.model import load
from hiddenstate.train import read_recipe
from tests.journeys import logs
from tests.unit.family_sources import FAMILIES

SOURCES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    **FAMILIES,
    "next_event": ("log.csv", logs.csv(60), "accuracy", {}),
    "problem:even_pairs:length=4-9": ("", "", "accuracy", {"problems.sequences": 64}),
}
SMALL = {"hidden_size": 8, "epochs": 2, "batch_size": 8, "embedding_size": 4, "threads": 1}
ROWS = 6


@pytest.fixture(scope="module", params=sorted(SOURCES))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small fit, its source beside it."""
    task = request.param
    name, content, _, own = SOURCES[task]
    folder = tmp_path_factory.mktemp("diagnosed")
    source: Any = task
    if name:
        source = folder / name
        source.write_text(content)
    fit(source, folder / "run", tasks=[task], **{**SMALL, **own})
    return folder / "run"


def evidence(run: Path) -> Any:
    model = load(run)
    family = family_of(model.artifact.spec.task_names)
    name = json.loads((run / "source.json").read_text())["source"]
    ready = family.prepare(name, read_recipe(run / "recipe.toml", {}), lambda _: None)
    return family.evidence(model, None, ready, rows=ROWS, seed=0, observer=lambda _: None)


def test_every_family_is_tried() -> None:
    assert {family_of([task]).name for task in SOURCES} == {family.name for family in ALL}


def test_the_batch_is_held_back_and_its_loss_is_the_one_of_training(run: Path) -> None:
    seen = evidence(run)
    looked, batch = seen.looked, seen.batch
    assert not looked.module.training
    model = seen.ready.build()
    model.load_state_dict(looked.module.state_dict())
    model.eval()
    assert looked.loss is not None
    with torch.no_grad():
        lost = model.losses(batch)
        due = float((lost.sums / lost.steps.clamp(min=1)).sum())
        found = float(looked.loss(looked.module(**looked.arguments)))
    assert found == pytest.approx(due, rel=1e-5)
    assert seen.part == "test"


def test_a_run_is_diagnosed_without_a_word_of_its_own(run: Path) -> None:
    report = diagnose(run, rows=ROWS)
    asked = {rule.code for rule in report.passed} | {each.code for each in report.findings}
    skipped = {rule.code for rule, _ in report.skipped}
    assert asked | skipped == set(CATALOGUE)
    assert {"HS101", "HS152", "HS610"} <= asked
    assert not [each for each in report.findings if each.severity == "error"]
    # What the model was fitted to is known by name, where it has names.
    batch = evidence(run).batch
    lengths = batch.source_lengths if hasattr(batch, "source_lengths") else batch.lengths
    assert len(report.events) in (0, int(lengths[report.row]))
    assert int(lengths[report.row]) == int(lengths.max())
    assert report.facts["data"].startswith("the test part of ")


def test_the_runtime_is_found_to_be_another_one(run: Path) -> None:
    seen = evidence(run)
    same = seen.difference()
    assert same.largest <= 1e-4 * max(same.scale, 1.0)
    for weight in seen.looked.module.parameters():
        with torch.no_grad():
            weight.add_(0.05)
    assert seen.difference().largest > 1e-3


def only(run: Path, code: str, **options: Any) -> list[Finding]:
    return list(diagnose(run, only=[code], rows=ROWS, **options).findings)


@pytest.fixture(scope="module")
def log_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    (folder / "log.csv").write_text(logs.csv(60))
    fit(folder / "log.csv", folder / "run", **{**SMALL, "epochs": 30})
    return folder / "run"


def test_other_data_are_looked_at_when_they_are_given(log_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(logs.csv(40).replace("triage", "check"))
    report = diagnose(log_run, other, rows=ROWS, only=["HS606"])
    (finding,) = report.findings
    assert finding.where == "activity"
    assert "'check'" in finding.measured
    assert report.facts["data"] == str(other)
    assert not only(log_run, "HS606")


def test_data_that_are_gone_or_changed_are_told(log_run: Path, tmp_path: Path) -> None:
    source = log_run.parent / "log.csv"
    content, remarks = source.read_text(), list[str]()
    moved = tmp_path / "run"
    shutil.copytree(log_run, moved)
    try:
        source.write_text(logs.csv(61))
        with pytest.raises(UsageError, match="Name data of its kind"):
            diagnose(moved, observer=remarks.append)
        assert "not what it was" in remarks[0]
        source.unlink()
        with pytest.raises(UsageError):
            diagnose(moved, observer=remarks.append)
        assert "cannot be read again" in remarks[1]
        # Other data are looked at all the same, and the training part is missed.
        source.write_text(content)
        (moved / "source.json").unlink()
        report = diagnose(moved, source, rows=ROWS, only=["HS603", "HS601"])
        assert {rule.code: why for rule, why in report.skipped} == {
            "HS603": "the training part is not there"
        }
    finally:
        source.write_text(content)


def test_the_history_of_the_fit_is_asked(log_run: Path) -> None:
    report = diagnose(log_run, rows=ROWS, only=["HS5"])
    assert "HS510" in {rule.code for rule in report.passed} | {e.code for e in report.findings}
    reasons = {rule.code: why for rule, why in report.skipped}
    assert reasons["HS509"] == "the movement of the parameters was not recorded"


def test_scores_are_read_as_they_were_written(log_run: Path) -> None:
    metrics = json.loads((log_run / "metrics.json").read_text())["scores"]
    (scored,) = of_scores(metrics, "test")
    task = metrics["tasks"]["next_event"]
    assert (scored.metric, scored.higher) == ("log loss (nats)", False)
    assert scored.model.value == task["model"]["metrics"]["log_loss"]["value"]
    assert scored.best_floor is not None
    assert scored.best_floor[1].value == task["floors"]["ngram"]["metrics"]["log_loss"]["value"]
    assert next(iter(scored.floors)) == "most frequent"
    assert [each.events for each in scored.lengths] == [
        each["events"] for each in task["model"]["by_length"]
    ]
    assert sum(each.events for each in scored.lengths) == scored.events


def test_sequences_of_all_lengths_are_chosen() -> None:
    lengths = np.array([0, 5, 900, 3, 8, 8, 1, 40])
    assert lengths[spread(lengths, 3)].tolist() == [1, 5, 40]
    assert sorted(lengths[spread(lengths, 99)]) == [1, 3, 5, 8, 8, 40]
    # Only long ones: the shortest of them.
    assert lengths[spread(lengths * 1000, 2)].tolist() == [1, 3]
