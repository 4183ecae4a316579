"""Commands run as a user runs them: in this process, which is quick, or in one of their own."""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from hiddenstate.cli.main import main


class Called(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def call(command: str, folder: Path) -> Called:
    """Run `hiddenstate COMMAND` in this process with folder as the working folder."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", ["hiddenstate", *shlex.split(command)]),
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return Called(code, out.getvalue(), err.getvalue())


def run(command: str, folder: Path, timeout_s: float = 120) -> Called:
    """Run `python -m hiddenstate COMMAND` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "hiddenstate", *shlex.split(command)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)
