"""Larger than memory: blocks cut anywhere and rows spilled to disk change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiddenstate.data import read, spool, stream
from hiddenstate.schema import EventLog


@pytest.fixture
def shuffled(tmp_path: Path) -> Path:
    """Return a CSV of 300 events of 30 cases in random order, with quotes and odd rows."""
    rng = np.random.default_rng(0)
    lines = [
        f'{rng.integers(30)},"act, {rng.integers(5)}\n",2024-01-{rng.integers(1, 29):02d},'
        f"{rng.choice(['é', 'ü', ''])},{rng.integers(100)}"
        for _ in range(300)
    ]
    lines[100:100] = ["short,row", ""]
    path = tmp_path / "log.csv"
    path.write_text("case,activity,date,mark,cost\n" + "\n".join(lines), encoding="utf-8")
    return path


def same(one: EventLog, other: EventLog) -> bool:
    return (
        one.case_ids.tolist() == other.case_ids.tolist()
        and np.array_equal(one.offsets, other.offsets)
        and np.array_equal(one.time_us, other.time_us)
        and all(
            c.names().tolist() == other.categorical[k].names().tolist()
            for k, c in one.categorical.items()
        )
        and all(np.array_equal(v, other.numeric[k], equal_nan=True) for k, v in one.numeric.items())
    )


@pytest.mark.parametrize("chunk_bytes", [61, 1000, 1 << 20])
@pytest.mark.parametrize("memory_bytes", [0, 4000, 1 << 28])
def test_the_log_is_the_same_however_it_is_cut(
    shuffled: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, memory_bytes: int
) -> None:
    whole, report = read(shuffled)
    monkeypatch.setattr(stream, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(spool, "PARTITIONS", 5)
    log, again = read(shuffled, memory_bytes=memory_bytes)
    assert same(whole, log)
    assert again.repairs == report.repairs
    assert again.repair("bad_fields").rows == ("row 102",)
    assert again.details["held"] == ("memory" if memory_bytes > 4000 else "memory-mapped files")
    assert same(log.select([3, 1]), whole.select([3, 1]))


def test_files_go_to_the_folder_given_and_the_spool_leaves_it(
    shuffled: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    log, _ = read(shuffled, memory_bytes=0, folder=folder)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".bin"}
    assert log.events == 300


def test_a_column_that_appears_late_is_missing_before(tmp_path: Path) -> None:
    lines = [f'{{"case": {i % 7}, "activity": "a", "time": {i}}}' for i in range(40)]
    lines += ['{"case": 1, "activity": "b", "time": 99, "note": "x", "cost": 5}']
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text("\n".join(lines[:40]))
    two.write_text(lines[40])
    for memory_bytes in (0, 1 << 28):
        log, _ = read([one, two], memory_bytes=memory_bytes, numeric=["cost"])
        names = log.categorical["note"].names().tolist()
        assert (names.count("x"), names.count(None)) == (1, 40)
        assert np.nansum(log.numeric["cost"]) == 5
