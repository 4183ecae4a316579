"""XES: traces and events as a stream, and what a hostile file is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hiddenstate.data import read
from hiddenstate.errors import DataError

LOG = """<?xml version="1.0" encoding="UTF-8"?>
<log xes.version="1.0" xmlns="http://www.xes-standard.org/">
  <global scope="event"><string key="concept:name" value="DEFAULT"/></global>
  <string key="origin" value="test"><int key="inner" value="1"/></string>
  <trace>
    <string key="concept:name" value="7"/>
    <event>
      <string key="concept:name" value="open &amp; look"/>
      <date key="time:timestamp" value="2024-01-01T10:00:00.500+01:00"/>
      <float key="cost" value="2.5"/>
      <string key="who" value="ann"><string key="rank" value="chief"/></string>
    </event>
    <event>
      <string key="concept:name" value="close"/>
      <date key="time:timestamp" value="2024-01-01T10:00:00Z"/>
      <boolean key="happy" value="true"/>
      <list key="parts"><values><int key="part" value="1"/></values></list>
    </event>
    <int key="budget" value="30"/>
  </trace>
  <trace><string key="concept:name" value="8"/></trace>
  <trace>
    <event>
      <string key="concept:name" value="open &amp; look"/>
      <date key="time:timestamp" value="2023-01-01"/>
      <float key="cost" value="1"/>
    </event>
  </trace>
</log>
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "log.xes"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_traces_become_cases_and_their_attributes_columns(tmp_path: Path, compressed: bool) -> None:
    path = written(tmp_path, LOG)
    if compressed:
        path = tmp_path / "log.xes.gz"
        path.write_bytes(gzip.compress(LOG.encode()))
    log, report = read(path, numeric=["cost", "case:budget"])
    assert log.case_ids.tolist() == ["trace 3", "7"]
    assert log.activities.names().tolist() == ["open & look", "open & look", "close"]
    assert log.time_us is not None
    assert log.time_us[1:].tolist() == [1_704_099_600_500_000, 1_704_103_200_000_000]
    assert log.numeric["cost"][:2].tolist() == [1.0, 2.5]
    assert log.numeric["case:budget"][1:].tolist() == [30.0, 30.0]
    assert log.categorical["happy"].names().tolist() == [None, None, "true"]
    assert log.case == "case:concept:name"
    assert report.repair("nested").count == 3
    assert report.repair("empty_case").rows == ("row 21",)
    assert report.repair("unnamed_case").count == 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (LOG[:-20], "not well-formed"),
        (LOG.replace("<log", "<!DOCTYPE log [<!ENTITY a 'b'>]><log"), "declares 'log' in line 2"),
        ("<html><trace></trace></html>", "no <log> element"),
        ("<log></log>", "has no events"),
        ("case,activity\n", "not well-formed"),
    ],
)
def test_what_is_no_xes_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        read(written(tmp_path, text))
