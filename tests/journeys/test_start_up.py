"""What a command costs before it does anything, and what it loads."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.calling import run

HELP_S = 0.3
HEAVY = ("torch", "polars", "pydantic", "plotly", "pandas")


def loaded(code: str, folder: Path) -> set[str]:
    """Run code in a process of its own; return the heavy modules that it loaded."""
    asked = f"{code}\nimport sys; print(*(set({HEAVY}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_is_quick(tmp_path: Path) -> None:
    """Processor time counts, so that other work on the machine does not."""

    def spent_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(5):
        before = spent_s()
        assert run("--help", tmp_path).code == 0
        times.append(spent_s() - before)
    assert min(times) < HELP_S


@pytest.mark.parametrize("module", ["hiddenstate", "hiddenstate.runtime", "hiddenstate.cli.main"])
def test_imports_load_nothing_heavy(module: str, tmp_path: Path) -> None:
    assert loaded(f"import {module}", tmp_path) == set()


def test_a_model_runs_without_torch(good: Path) -> None:
    code = (
        "import hiddenstate\n"
        "model = hiddenstate.load('run')\n"
        "model.predict('log.csv'); model.evaluate('log.csv', bootstrap=100)"
    )
    assert "torch" not in loaded(code, good)


@pytest.mark.parametrize("command", ["evaluate run log.csv", "predict run log.csv --out q.csv"])
def test_commands_that_use_a_model_do_not_load_torch(command: str, good: Path) -> None:
    code = (
        "import sys; from hiddenstate.cli.main import main\n"
        f"sys.argv = ['hiddenstate', *{command.split()!r}, '--quiet']\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code"
    )
    assert "torch" not in loaded(code, good)
