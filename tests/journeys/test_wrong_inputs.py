"""Wrong inputs end in words that help, the right exit code, and nothing half-written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.journeys.calling import call, run
from tests.journeys.wrong import Wrong
from tests.journeys.wrong_inputs import WRONG

IN_PROCESSES = ("the file does not exist", "a task nobody knows", "weights cut off")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes, and the folders."""
    found = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """Return a folder with a model that may be spoilt."""
    shutil.copytree(good / "run", tmp_path / "run")
    return tmp_path


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_input_is_told_and_nothing_is_written(wrong: Wrong, folder: Path) -> None:
    wrong.prepare(folder)
    before = contents(folder)
    code, out, err = call(wrong.command, folder)
    assert code == wrong.code, err
    assert out == ""
    for word in wrong.words:
        assert word in err
    assert "Traceback" not in err
    assert str(folder) not in err
    if not err.startswith("Usage:"):  # typer refuses flags in its own form
        wrong_part, expected, remedy = err.splitlines()[-3:]
        assert wrong_part.startswith("Error: ")
        assert all(part.endswith((".", "?")) for part in (wrong_part, expected, remedy))
    assert contents(folder) == before


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_a_process_says_the_same(name: str, folder: Path) -> None:
    wrong = next(each for each in WRONG if each.name == name)
    wrong.prepare(folder)
    assert run(wrong.command, folder) == call(wrong.command, folder)


def test_names_are_not_used_twice() -> None:
    names = [wrong.name for wrong in WRONG]
    assert len(set(names)) == len(names) >= 30


def test_flags_that_messages_name_exist() -> None:
    """A remedy must not send anybody to a flag that is not there."""
    import hiddenstate

    package = Path(hiddenstate.__file__).parent
    # Properties of a style sheet look like flags: --left: 3ch, var(--left).
    flag = re.compile(r"(?<![\w(-])--[a-z][a-z-]+(?![\w:-])")
    defined = set(flag.findall("".join(map(Path.read_text, (package / "cli").glob("*.py")))))
    for path in package.rglob("*.py"):
        named = set(flag.findall(path.read_text()))
        assert named <= {*defined, "--help"}, path
