"""A good model, fitted once, and the files of the guide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys import logs
from tests.journeys.calling import call
from tests.journeys.guide import write_files
from tests.journeys.wrong import GOOD


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with log.csv and `run`, a model of it."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "log.csv").write_text(logs.csv())
    done = call(GOOD, folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that docs/tasks.md speaks of."""
    folder = tmp_path_factory.mktemp("guide")
    write_files(folder)
    return folder
