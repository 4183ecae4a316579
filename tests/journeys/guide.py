"""The guide docs/tasks.md as a user follows it: its sections, their commands and their files.

Files of tests are shared out to processes, and the guide takes minutes, so test_guide_N.py holds
every fourth section from the Nth on.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hiddenstate.job.events.demo import write_log
from hiddenstate.tasks import simulator

ROOT = Path(__file__).parents[2]
TASKS = (ROOT / "docs" / "tasks.md").read_text()
PARTS = 4
# A command of the guide is tried with a model that is small and soon done.
QUICK = ["--epochs", "1", "--hidden-size", "8", "--threads", "1", "--quiet"]
SMALL = {
    "lm": ["--set", "text.window=8"],
    "forecast": ["--set", "series.context=24"],
    "translate": ["--set", "pairs.unit=words", "--set", "model.embedding_size=8"],
}


def commands(text: str) -> list[str]:
    """Return the commands of a document or of a part of it."""
    return re.findall(r"^    (hiddenstate .*)$", text, re.M)


def sections() -> dict[str, list[str]]:
    """Return the commands of every section that has some, by its title."""
    parts = (part.partition("\n") for part in f"\n{TASKS}".split("\n## "))
    return {title: found for title, _, text in parts if (found := commands(text))}


def part(number: int) -> list[str]:
    """Return the titles for test_guide_NUMBER.py."""
    return list(sections())[number - 1 :: PARTS]


def run_section(title: str, folder: Path) -> None:
    """Run the commands of a section, one after another, each in a process of its own."""
    for command in sections()[title]:
        words = shlex.split(command)
        kind = words[words.index("--task") + 1] if "--task" in words else ""
        quick = [*QUICK, *SMALL.get(kind, [])] if words[1] == "fit" else []
        if words[1] in ("compare", "tune"):
            quick = ["--epochs", "1", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", *words, *quick],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def write_logs(folder: Path) -> None:
    """Write the event logs that README and guide speak of."""
    for seed, (name, tickets) in enumerate(
        {"tickets": 60, "held_back": 10, "open_cases": 5}.items()
    ):
        write_log(simulator.simulate(tickets, seed), folder / f"{name}.csv")


def write_files(folder: Path) -> None:
    """Write all files that the guide speaks of."""
    write_logs(folder)
    lines = [f"ROMEO: the {n % 7} and the {n % 5}\n" for n in range(120)]
    (folder / "input.txt").write_text("".join(lines))
    (folder / "sonnet.txt").write_text("the 3 and the 2\n")
    told = [f"{'good' if n % 2 else 'bad'} one {n % 9}\t{n % 2}\n" for n in range(80)]
    (folder / "reviews.csv").write_text("text\tlabel\n" + "".join(told))
    (folder / "new_reviews.csv").write_text("text\ngood one 3\nbad one 4\n")
    tagged = [f"a X\n{'b' if n % 2 else 'c'} Y\nw{n} Z\n\n" for n in range(40)]
    (folder / "tagged.conll").write_text("".join(tagged))
    rows = [f"m{n // 8},{n % 8},{n % 5},{n % 3},{n % 8 + n % 5}\n" for n in range(240)]
    (folder / "machines.csv").write_text("series,time,load,heat,wear\n" + "".join(rows))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = (start + timedelta(hours=n) for n in range(400))
    values = [f"{hour:%Y-%m-%d %H:%M:%S},{hour.hour * 1.5},{hour.day}\n" for hour in hours]
    (folder / "load.csv").write_text("time,load,heat\n" + "".join(values))
    pairs = [f"ein {n % 9} hund {n % 7}\ta {n % 9} dog {n % 7}\n" for n in range(63)]
    (folder / "pairs.tsv").write_text("".join(pairs))
    (folder / "sentences.txt").write_text("ein 3 hund 4\nein 5 hund 6\n")
