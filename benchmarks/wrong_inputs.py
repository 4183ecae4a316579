"""Write docs/results/wrong_inputs.md: what is said to each wrong input.

python -m benchmarks.wrong_inputs
"""

from __future__ import annotations

import html
import shutil
import tempfile
from pathlib import Path

from tests.journeys import logs
from tests.journeys.calling import call
from tests.journeys.wrong import GOOD, QUICK, Wrong
from tests.journeys.wrong_inputs import GROUPS, WRONG

OUT = Path(__file__).parents[1] / "docs" / "results" / "wrong_inputs.md"
INTRODUCTION = f"""# What is said to wrong inputs

{len(WRONG)} wrong files, settings and models, the command that each was given to, the exit code
(2 for a wrong use of the command, 1 for anything else) and the message on standard error. Every
message says what is wrong, what was expected and what to do; no command left a file behind. The
last lines of a usage error are typer's own. Where the command reads `log.csv` or `run` and the
name of the case does not say otherwise, they are a good log and a good model.

Written by `python -m benchmarks.wrong_inputs`; `tests/journeys/test_wrong_inputs.py` checks the
same list (`tests/journeys/wrong_*.py`).
"""
HEAD = "| wrong | command | exit | message |\n|---|---|---|---|"


def main() -> None:
    """Run every wrong input in a folder of its own and write the table."""
    parts = [INTRODUCTION]
    with tempfile.TemporaryDirectory() as name:
        good = Path(name)
        (good / "log.csv").write_text(logs.csv())
        call(GOOD, good)
        for title, group in GROUPS.items():
            parts += [f"\n## {title}\n", HEAD, *(row(wrong, good) for wrong in group)]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(parts) + "\n", encoding="utf-8")
    print(f"{len(WRONG)} wrong inputs are in {OUT.name}")


def row(wrong: Wrong, good: Path) -> str:
    """Run a wrong input; return its row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(good / "run", folder / "run")
        wrong.prepare(folder)
        code, _, err = call(wrong.command, folder)
    command = wrong.command.replace(f" {QUICK}", "")
    return f"| {wrong.name} | `{command.replace('|', chr(92) + '|')}` | {code} | {told(err)} |"


def told(err: str) -> str:
    """Return a message as one line of a Markdown table, without the frames around usage errors."""
    lines = (line.strip("│╭╮╰╯─ ").removeprefix("Error ─") for line in err.splitlines())
    text = " ".join(line for line in lines if line and line != "Error").strip()
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    main()
