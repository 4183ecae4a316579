"""docs/results/sequences.md: tables of recorded runs, a section for each task.

Every script records its own section with `record`; the page is written anew from all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.kernels.machine import describe

RESULTS = Path("docs/results/sequences.json")
PAGE = Path("docs/results/sequences.md")
# The order of the page; a section that was not recorded is left out.
SECTIONS = (
    "language",
    "translation",
    "speed",
)
# Scripts with a page of their own.
OTHERS = {
    "labels": "Texts and series with a label: TREC, JapaneseVowels, names",
    "series": "Signals: ETTh1, and the JSB chorales frame by frame",
    "memories": "Elman, LSTM, GRU and attention on problems with known answers",
}
INTRODUCTION = """# Sequence tasks

Recorded runs, on two cores without a GPU; made by the scripts in `benchmarks/` that each section
names. Floors never see the test part.
"""


def record(
    section: str,
    title: str,
    command: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    notes: Sequence[str] = (),
    details: Any = None,
) -> None:
    """Keep a section's table and write the page.

    command: what makes the table again
    notes:   sentences that stand below the table: how it was measured, what is missed
    details: whatever else is worth keeping as JSON
    """
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[section] = {
        "title": title,
        "command": command,
        "recorded": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": describe(),
        "columns": list(columns),
        "rows": [[str(cell) for cell in row] for row in rows],
        "notes": list(notes),
        "details": details,
    }
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


def page(kept: dict[str, Any]) -> str:
    """Return the whole page."""
    others = [
        f"- [{title}]({name}.md)"
        for name, title in OTHERS.items()
        if (PAGE.parent / f"{name}.md").exists()
    ]
    parts = [INTRODUCTION, "\n".join(["With pages of their own:", "", *others, ""])]
    for name in [*SECTIONS, *sorted(set(kept) - set(SECTIONS))]:
        if name not in kept:
            continue
        each = kept[name]
        machine = each["machine"]
        lines = [
            f"## {each['title']}",
            "",
            f"`{each['command']}`, {each['recorded']}: {machine['processor']}, "
            f"{machine['cores']} cores, torch {machine['versions']['torch']}.",
            "",
            "| " + " | ".join(each["columns"]) + " |",
            "|---" * len(each["columns"]) + "|",
            *("| " + " | ".join(row) + " |" for row in each["rows"]),
            "",
            *(f"- {note}" for note in each["notes"]),
        ]
        parts.append("\n".join(lines).rstrip() + "\n")
    return "\n".join(parts)
