"""Measure the kernels and the runtime, and write docs/results/kernels.md and kernels.json.

python -m benchmarks.kernels [--items 1,2,...] [--variants default,AVX2] [--quick]

Every measurement is a process of its own, one after the other, because allocators and instruction
sets are chosen by environment variables. What is measured replaces what kernels.json holds of it;
the page is written from all of kernels.json. --quick tries everything on few sizes, prints the page
and records nothing. HIDDENSTATE_DATA names the folder with the public logs (items 5 and 6).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.kernels import machine, page
from benchmarks.kernels.plan import ENVIRONMENTS, TITLES, Setting, settings

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Run one worker and return its rows; ends with what it said where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.kernels.worker", str(out)]
        done = subprocess.run(
            [*command, json.dumps(setting._asdict())], env=setting.environment(), check=False
        )
        if done.returncode:
            raise SystemExit(f"The measurement {setting.key} failed (exit {done.returncode}).")
        rows: list[dict[str, Any]] = json.loads(out.read_text())
        return rows


def text_of(results: Mapping[str, Any]) -> str:
    """Return results as JSON, a line for each row: what was measured again is what changes."""
    parts = []
    for key, each in results.items():
        about = {name: value for name, value in each.items() if name != "rows"}
        rows = ",\n".join(f"  {json.dumps(row)}" for row in each["rows"])
        parts.append(f' "{key}": {json.dumps(about)[:-1]}, "rows": [\n{rows}\n ]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Measure what is asked for, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    parser.add_argument("--items", default=",".join(map(str, TITLES)), help="such as 1,2,7")
    parser.add_argument("--variants", default=",".join(ENVIRONMENTS), help="such as default")
    parser.add_argument("--quick", action="store_true", help="few sizes; records nothing")
    chosen = parser.parse_args()
    items = {int(item) for item in chosen.items.split(",")}
    if not items <= set(TITLES):
        parser.error(f"the items are {', '.join(map(str, TITLES))}")
    store = RESULTS / "kernels.json"
    known = store.exists() and not chosen.quick
    results: dict[str, Any] = json.loads(store.read_text()) if known else {}
    variants = set(chosen.variants.split(","))
    for setting in settings(items, chosen.quick):
        if setting.variant not in variants:
            continue
        print(f"{setting.key} ...", file=sys.stderr, flush=True)
        others = machine.Others()
        rows = measure(setting)
        results[setting.key] = {
            "setting": setting._asdict(),
            "machine": machine.describe(),
            "others": others.cores(),
            "rows": rows,
        }
        if not chosen.quick:
            store.write_text(text_of(results))
    text = page.document(results)
    if chosen.quick:
        print(text)
    else:
        (RESULTS / "kernels.md").write_text(text)


if __name__ == "__main__":
    main()
