"""An installation without the compiled kernels, and one with an instruction set nobody has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hiddenstate.kernels import native

# What an import finds where the package was installed without a compiler.
WITHOUT = "import sys; sys.modules['hiddenstate.kernels._native'] = None\n"
COMMAND = "from hiddenstate.cli.main import main; main()"


def python(
    code: str, folder: Path, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def output(code: str, folder: Path, *words: str) -> str:
    done = python(code, folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_that_they_are_missing(tmp_path: Path) -> None:
    shape = ["kernels", "--input", "3", "--hidden", "4", "--batch", "2", "--time", "5"]
    said = output(WITHOUT + COMMAND, tmp_path, *shape)
    assert "compiled kernels: none; the compiled kernels are not installed" in said
    assert "Install a C++ compiler and install again." in said
    assert "native refuses: the compiled kernels are not installed" in said


def test_the_reference_takes_over(tmp_path: Path) -> None:
    code = (
        "import numpy as np\n"
        "from hiddenstate.cells import GRU\n"
        "from hiddenstate.kernels import KERNELS, Request, choose, linear_scan, packed_if_able\n"
        "cell, rng = GRU(3, 4), np.random.default_rng(0)\n"
        "params = packed_if_able(cell, cell.init(rng))\n"
        "kernel = choose(KERNELS, Request(cell, 2, 5))\n"
        "y = kernel.run(cell, params, rng.standard_normal((2, 5, 3), np.float32)).output\n"
        "h = linear_scan(np.full((1, 3, 1), 0.6), np.array([[[1.0], [0.4], [0.9]]]))\n"
        "print(kernel.name, y.shape, h[0, -1])"
    )
    assert output(WITHOUT + code, tmp_path) == "reference (2, 5, 4) [1.5]\n"


@pytest.mark.parametrize("call", ["Packed(cell, params)", "Stepper(cell, params)"])
def test_what_needs_them_refuses(call: str, tmp_path: Path) -> None:
    code = (
        "import numpy as np\n"
        "from hiddenstate.cells import GRU\n"
        "from hiddenstate.errors import KernelRefusal\n"
        "from hiddenstate.kernels import Packed, Stepper\n"
        "cell = GRU(3, 4); params = cell.init(np.random.default_rng(0))\n"
        f"try:\n    {call}\n"
        "except KernelRefusal as refusal:\n"
        "    print(refusal.wrong, refusal.expected, refusal.remedy, sep='\\n')"
    )
    wrong, expected, remedy = output(WITHOUT + code, tmp_path).splitlines()
    assert "the compiled kernels are not installed" in wrong
    assert expected == "Packed parameters are for the compiled kernels."
    assert "the reference kernel takes them" in remedy


def test_predictions_are_the_same_without_them(good: Path) -> None:
    code = (
        "import hiddenstate\n"
        "for p in hiddenstate.load('run').predict('log.csv')['next_event_probability']: print(p)"
    )
    whole, without = (
        [float(line) for line in output(before + code, good).splitlines()]
        for before in ("", WITHOUT)
    )
    assert len(whole) > 0
    assert without == pytest.approx(whole, abs=1e-5)


@pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)
@pytest.mark.parametrize("command", ["predict run log.csv", "kernels"])
def test_an_instruction_set_nobody_has_is_told_in_words(command: str, good: Path) -> None:
    done = python(COMMAND, good, *command.split(), HIDDENSTATE_ISA="generik")
    assert done.returncode == 2
    wrong, expected, remedy = done.stderr.splitlines()
    assert wrong == "Error: HIDDENSTATE_ISA is 'generik'."
    assert "generic" in expected
    assert "Did you mean generic?" in remedy
