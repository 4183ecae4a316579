"""What a command costs before it does anything, and what it loads."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journeys.calling import run

HELP_S = 0.3
IMPORT_S = 0.2
FIRST_PREDICTION_S = 0.5
HEAVY = ("torch", "polars", "pydantic", "pandas")


def loaded(code: str, folder: Path) -> set[str]:
    """Run code in a process of its own; return the heavy modules that it loaded."""
    asked = f"{code}\nimport sys; print(*(set({HEAVY}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def least_s(start: Callable[[], object]) -> float:
    """Start a process five times; return the least processor time that it took.

    Processor time counts, so that other work on the machine does not.
    """

    def spent_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(5):
        before = spent_s()
        start()
        times.append(spent_s() - before)
    return min(times)


def test_help_is_quick(tmp_path: Path) -> None:
    def ask() -> None:
        assert run("--help", tmp_path).code == 0

    assert least_s(ask) < HELP_S


def test_the_runtime_is_imported_quickly(tmp_path: Path) -> None:
    code = (
        "import time; start = time.thread_time()\n"
        "import hiddenstate.runtime\n"
        "print(time.thread_time() - start)"
    )
    command = [sys.executable, "-c", code]
    times = [subprocess.check_output(command, cwd=tmp_path, text=True) for _ in range(5)]
    assert min(map(float, times)) < IMPORT_S


def test_the_first_prediction_comes_quickly(good: Path) -> None:
    """From the start of a process: load the model, take an event, say what comes next."""
    code = (
        "from pathlib import Path\n"
        "from hiddenstate import artifact\n"
        "from hiddenstate.runtime import Model\n"
        "model = Model(artifact.load(Path('run')))\n"
        "event = {'activity': 'open', 'timestamp': 0, 'amount': 1.0, 'channel': 'phone'}\n"
        "codes, numbers, _ = model.spec.schema.encode_event(event, None)\n"
        "outputs, _ = model.step_many(codes[None], numbers[None])\n"
        "assert abs(sum(2.718281828 ** model.decode(outputs)[0][0]) - 1) < 1e-6"
    )

    def predict() -> None:
        subprocess.run([sys.executable, "-c", code], cwd=good, check=True)

    assert least_s(predict) < FIRST_PREDICTION_S


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
