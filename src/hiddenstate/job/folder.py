"""The run folder while a fit goes on: who may write into it, and what a resumed fit must find.

    recipe.toml    the resolved recipe
    source.json    what was read: its name, counts and a digest
    split.csv      the part (train, validation, test) of every named case
    history.jsonl  the report of every epoch, a line each
    checkpoint/    the last whole epoch, train.safetensors, and finish.safetensors
    tensorboard/   scalars, where asked for

The artifact's files (see `hiddenstate.artifact.folder`) stand beside them once the fit has ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hiddenstate.artifact.files import read_json, write_atomically, write_json
from hiddenstate.errors import UsageError

RECIPE, SOURCE, SPLIT, HISTORY = "recipe.toml", "source.json", "split.csv", "history.jsonl"


class RunFolder:
    """A folder that belongs to one fit."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is touched."""
        self.path = path

    def checkpoint(self, phase: str) -> Path:
        """Return the checkpoint file of a phase of training."""
        return self.path / "checkpoint" / f"{phase}.safetensors"

    def refuse_existing(self, *, overwrite: bool, resume: bool) -> None:
        """Raise UsageError where a fit may not write here; nothing is changed."""
        path = self.path
        is_run = (path / RECIPE).exists()
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"--out {path} is a file.", "A folder was expected.", "Choose another name."
            )
        if resume:
            if not is_run:
                raise UsageError(
                    f"There is no run to resume in {path}.",
                    f"A run that was begun has a {RECIPE}.",
                    "Give the --out of the run that was stopped, or leave out --resume.",
                )
            return
        if not path.exists() or not any(path.iterdir()):
            return
        if not overwrite:
            raise UsageError(
                f"--out {path} exists and is not empty.",
                "Nothing is overwritten unasked.",
                "Choose another folder, or add --overwrite"
                + (", or --resume to go on with it." if is_run else "."),
            )
        if not is_run:
            raise UsageError(
                f"--out {path} is not a run folder (it has no {RECIPE}).",
                "--overwrite deletes a run folder with all that is in it, and no other folder.",
                "Choose another folder, or empty it yourself.",
            )

    def begin(self, recipe: str, *, resume: bool) -> None:
        """Make the folder, empty unless resumed, and save the recipe."""
        if resume:
            self._require_same("settings", (self.path / RECIPE).read_text(), recipe)
        elif self.path.exists():
            shutil.rmtree(self.path)
        self.checkpoint("train").parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / RECIPE, recipe.encode())

    def note_source(self, name: str, identity: Mapping[str, Any], *, resume: bool) -> None:
        """Save what was read, its counts and digest; on resume it must be what was read before."""
        before = self.path / SOURCE
        if resume and before.exists():
            known = {k: v for k, v in read_json(before).items() if k != "source"}
            self._require_same("data", _text(known), _text(identity))
        write_json(before, {"source": name, **identity})

    def note_split(self, parts: Iterable[tuple[str, str]]) -> None:
        """Save the part of every case."""
        lines = ["case,part"]
        for name, part in parts:
            quoted = '"' + name.replace('"', '""') + '"'
            lines.append(f"{quoted},{part}")
        write_atomically(self.path / SPLIT, ("\n".join(lines) + "\n").encode())

    def note_epoch(self, report: Mapping[str, Any]) -> None:
        """Save the report of an epoch, unless a resumed fit tells it again."""
        path = self.path / HISTORY
        lines = path.read_text().splitlines() if path.exists() else []
        if _place(report) not in (_place(json.loads(line)) for line in lines):
            write_atomically(path, "\n".join([*lines, json.dumps(report), ""]).encode())

    def _require_same(self, what: str, before: str, now: str) -> None:
        if before != now:
            then, new = before.splitlines(), now.splitlines()
            raise UsageError(
                f"The run in {self.path} was begun with other {what}; "
                f"then: {_only_in(then, new)}; now: {_only_in(new, then)}.",
                "--resume goes on with the same file, recipe and flags, so that the result is "
                "that of an uninterrupted fit.",
                f"Give the settings of {self.path / RECIPE}, or start anew with --overwrite.",
            )


def _only_in(lines: list[str], others: list[str]) -> str:
    return ", ".join(line for line in lines if line not in others) or "not set"


def _text(identity: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} {value!s:.12}" for name, value in identity.items())


def _place(report: Mapping[str, Any]) -> tuple[str, int]:
    return report["phase"], report["epoch"]
