"""What the documents promise is what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from docs import generate

from hiddenstate.job.events.demo import write_log
from hiddenstate.tasks import simulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TASKS = (ROOT / "docs" / "tasks.md").read_text()
# A command of the guide is tried with a model that is small and soon done.
QUICK = ["--epochs", "1", "--hidden-size", "8", "--threads", "1", "--quiet"]
SMALL = {
    "lm": ["--set", "text.window=8"],
    "forecast": ["--set", "series.context=24"],
    "translate": ["--set", "pairs.unit=words", "--set", "model.embedding_size=8"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of."""
    made = tmp_path_factory.mktemp("readme")
    for seed, (name, tickets) in enumerate(
        {"tickets": 60, "held_back": 10, "open_cases": 5}.items()
    ):
        write_log(simulator.simulate(tickets, seed), made / f"{name}.csv")
    return made


@pytest.fixture(scope="module")
def guide(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that docs/tasks.md speaks of."""
    made = tmp_path_factory.mktemp("guide")
    for path in folder.glob("*.csv"):
        (made / path.name).write_bytes(path.read_bytes())
    lines = [f"ROMEO: the {n % 7} and the {n % 5}\n" for n in range(120)]
    (made / "input.txt").write_text("".join(lines))
    (made / "sonnet.txt").write_text("the 3 and the 2\n")
    told = [f"{'good' if n % 2 else 'bad'} one {n % 9}\t{n % 2}\n" for n in range(80)]
    (made / "reviews.csv").write_text("text\tlabel\n" + "".join(told))
    (made / "new_reviews.csv").write_text("text\ngood one 3\nbad one 4\n")
    tagged = [f"a X\n{'b' if n % 2 else 'c'} Y\nw{n} Z\n\n" for n in range(40)]
    (made / "tagged.conll").write_text("".join(tagged))
    rows = [f"m{n // 8},{n % 8},{n % 5},{n % 3},{n % 8 + n % 5}\n" for n in range(240)]
    (made / "machines.csv").write_text("series,time,load,heat,wear\n" + "".join(rows))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = (start + timedelta(hours=n) for n in range(400))
    values = [f"{hour:%Y-%m-%d %H:%M:%S},{hour.hour * 1.5},{hour.day}\n" for hour in hours]
    (made / "load.csv").write_text("time,load,heat\n" + "".join(values))
    pairs = [f"ein {n % 9} hund {n % 7}\ta {n % 9} dog {n % 7}\n" for n in range(63)]
    (made / "pairs.tsv").write_text("".join(pairs))
    (made / "sentences.txt").write_text("ein 3 hund 4\nein 5 hund 6\n")
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


def test_commands_of_the_guide_run(guide: Path) -> None:
    """Every command of docs/tasks.md, one after another."""
    commands = re.findall(r"^    (hiddenstate .*)$", TASKS, re.M)
    assert len(commands) > 15
    for command in commands:
        words = shlex.split(command)
        kind = words[words.index("--task") + 1] if "--task" in words else ""
        quick = [*QUICK, *SMALL.get(kind, [])] if words[1] == "fit" else []
        if words[1] in ("compare", "tune"):
            quick = ["--epochs", "1", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", *words, *quick],
            cwd=guide,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_every_command_is_in_a_guide() -> None:
    commands = {
        part.split()[1] for part in re.findall(r"^### (hiddenstate .*)$", generate.page(), re.M)
    }
    named = set(re.findall(r"hiddenstate (\w+)", README + TASKS))
    assert commands <= named


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
