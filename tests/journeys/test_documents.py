"""What the documents promise is what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from docs import generate

from hiddenstate.job.events.demo import write_log
from hiddenstate.tasks import simulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of."""
    made = tmp_path_factory.mktemp("readme")
    for seed, (name, tickets) in enumerate(
        {"tickets": 60, "held_back": 10, "open_cases": 5}.items()
    ):
        write_log(simulator.simulate(tickets, seed), made / f"{name}.csv")
    return made


def test_settings_page_is_that_of_the_code() -> None:
    assert generate.PAGE.read_text() == generate.page(), "run python -m docs.generate"


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in generate.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    assert [row for row in rows if row.rstrip(" |").count("|") < 3] == []


def test_commands_of_the_readme_run(folder: Path) -> None:
    commands = re.findall(r"^    (hiddenstate .*)$", README, re.M)
    assert len(commands) == 4
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (folder / "predictions.parquet").exists()


def test_python_of_the_readme_runs(folder: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    block = block.replace("runs/tickets", "runs/python")
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "next_event" in done.stdout


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_folders_of_the_readme_are_the_packages() -> None:
    named = set(re.findall(r"^\| `src/hiddenstate/(\w+)`", README, re.M))
    packages = {path.parent.name for path in (ROOT / "src/hiddenstate").glob("*/__init__.py")}
    assert named == packages
