"""The run folder: who may write into it, and what a resumed fit must find."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiddenstate.errors import UsageError
from hiddenstate.job.events.digest import digest
from hiddenstate.job.folder import RunFolder
from hiddenstate.schema import Categorical, EventLog
from tests.unit.small_fits import small_log


def as_identity(log: EventLog) -> dict[str, Any]:
    """Return what a log is known by."""
    return {"cases": log.cases, "events": log.events, "digest": digest(log)}


def begun(path: Path) -> RunFolder:
    """Return a folder in which a run has begun."""
    folder = RunFolder(path)
    folder.begin("seed = 1\n", resume=False)
    folder.note_source("log.csv", as_identity(small_log()), resume=False)
    return folder


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new").refuse_existing(overwrite=False, resume=False)
    RunFolder(tmp_path).refuse_existing(overwrite=False, resume=False)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_no_fit_wrote_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=str(tmp_path)):
            RunFolder(tmp_path).refuse_existing(overwrite=overwrite, resume=False)
    assert (tmp_path / "letter.txt").exists()


def test_a_run_may_be_overwritten_or_resumed(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    with pytest.raises(UsageError, match="--resume to go on"):
        folder.refuse_existing(overwrite=False, resume=False)
    folder.refuse_existing(overwrite=True, resume=False)
    folder.refuse_existing(overwrite=False, resume=True)
    with pytest.raises(UsageError, match="no run to resume"):
        RunFolder(tmp_path / "other").refuse_existing(overwrite=False, resume=True)


def test_beginning_anew_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    folder.checkpoint("train").write_bytes(b"old")
    folder.begin("seed = 2\n", resume=False)
    assert not folder.checkpoint("train").exists()
    assert (folder.path / "recipe.toml").read_text() == "seed = 2\n"


def test_resuming_needs_the_same_recipe_and_events(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    folder.checkpoint("train").write_bytes(b"kept")
    folder.begin("seed = 1\n", resume=True)
    folder.note_source("moved.csv", as_identity(small_log()), resume=True)
    with pytest.raises(UsageError, match="then: seed = 1; now: seed = 2"):
        folder.begin("seed = 2\n", resume=True)
    other = EventLog.from_traces([["a"], ["b"]])
    with pytest.raises(UsageError, match=r"other data; then: cases 20.*now: cases 2,"):
        folder.note_source("log.csv", as_identity(other), resume=True)
    assert folder.checkpoint("train").read_bytes() == b"kept"
    assert (folder.path / "recipe.toml").read_text() == "seed = 1\n"


def change(log: EventLog, **parts: Any) -> EventLog:
    """Return a log with some of its parts changed."""
    given = {
        "case_ids": log.case_ids,
        "offsets": log.offsets,
        "activity": log.activity,
        "categorical": log.categorical,
        "numeric": log.numeric,
        "time_us": log.time_us,
    }
    return EventLog(**{**given, **parts})


def test_the_digest_is_of_everything_in_a_log() -> None:
    log = small_log()
    times = np.arange(log.events, dtype=np.int64)
    numbers = np.zeros(log.events)
    column = log.categorical[log.activity]
    other_label = Categorical(column.codes, (*column.labels[:-1], "z"))
    other_code = Categorical(np.roll(column.codes, 1), column.labels)
    logs = [
        log,
        change(log, case_ids=log.case_ids[::-1].copy()),
        change(log, categorical={log.activity: other_label}),
        change(log, categorical={log.activity: other_code}),
        change(log, numeric={"x": numbers}),
        change(log, numeric={"y": numbers}),
        change(log, numeric={"x": numbers + 1}),
        change(log, time_us=times),
        change(log, time_us=times + 1),
        change(log, offsets=np.array([0, 2, *log.offsets[2:]])),
    ]
    assert len({digest(each) for each in logs}) == len(logs)
    assert digest(small_log()) == digest(log)


def test_the_split_is_written_so_that_any_name_comes_back(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    names = ['a "b"', "c,d", "e"]
    folder.note_split(zip(names, ("train", "validation", "test")))
    with (folder.path / "split.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["case", "part"], *map(list, zip(names, ("train", "validation", "test")))]


def test_an_epoch_told_twice_is_written_once(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    told = [("train", 1), ("train", 2), ("train", 2), ("finish", 1), ("train", 2), ("finish", 1)]
    for phase, epoch in told:
        folder.note_epoch({"phase": phase, "epoch": epoch})
    lines = (folder.path / "history.jsonl").read_text().splitlines()
    assert lines == [
        '{"phase": "train", "epoch": 1}',
        '{"phase": "train", "epoch": 2}',
        '{"phase": "finish", "epoch": 1}',
    ]
