"""What the documents promise is what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from docs import conventions, generate, rules

from hiddenstate.diagnose import CATALOGUE
from tests.journeys import guide
from tests.journeys.guide import ROOT, TASKS

README = (ROOT / "README.md").read_text()
DIAGNOSE = (ROOT / "docs" / "diagnose.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of."""
    made = tmp_path_factory.mktemp("readme")
    guide.write_logs(made)
    return made


def test_settings_page_is_that_of_the_code() -> None:
    assert generate.PAGE.read_text() == generate.page(), "run python -m docs.generate"


def test_rules_page_is_that_of_the_code() -> None:
    assert rules.PAGE.read_text() == rules.page(), "run python -m docs.generate"


def test_conventions_page_is_that_of_the_code() -> None:
    assert conventions.PAGE.read_text() == conventions.page(), "run python -m docs.generate"


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in generate.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    assert [row for row in rows if row.rstrip(" |").count("|") < 3] == []


def test_commands_of_the_readme_run(folder: Path) -> None:
    commands = guide.commands(README)
    assert len(commands) == 7
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (folder / "predictions.parquet").exists()


def test_every_command_of_the_guide_is_run_in_one_of_its_parts() -> None:
    files = list((ROOT / "tests" / "journeys").glob("test_guide_*.py"))
    assert len(files) == guide.PARTS
    shared = [title for number in range(1, guide.PARTS + 1) for title in guide.part(number)]
    run = [command for title in shared for command in guide.sections()[title]]
    assert len(run) > 15
    assert sorted(run) == sorted(guide.commands(TASKS))


def test_every_command_is_in_a_guide() -> None:
    commands = {
        part.split()[1] for part in re.findall(r"^### (hiddenstate .*)$", generate.page(), re.M)
    }
    named = set(re.findall(r"hiddenstate (\w+)", README + TASKS))
    assert commands <= named


def test_python_of_the_readme_runs(folder: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    assert len(blocks) == 2
    printed = ""
    for block in blocks:
        block = block.replace("runs/tickets", "runs/python")
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    assert "next_event" in printed
    assert "(16, 40, 32)" in printed


def test_the_page_on_diagnosing_is_a_program(tmp_path: Path) -> None:
    program = "".join(re.findall(r"^```python\n(.*?)^```$", DIAGNOSE, re.M | re.S))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Not healthy: 2 errors" in done.stdout
    assert "HS101 error" in done.stdout
    assert "rests most on" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert numpy.load(tmp_path / "trace.npz")
    assert f"[{len(CATALOGUE)} rules](rules.md)" in DIAGNOSE


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{each.name}" for each in DOCS)])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


def test_folders_of_the_readme_are_the_packages() -> None:
    named = set(re.findall(r"^\| `src/hiddenstate/(\w+)`", README, re.M))
    packages = {path.parent.name for path in (ROOT / "src/hiddenstate").glob("*/__init__.py")}
    assert named == packages
