"""The run folder while a fit goes on: who may write into it, and what a resumed fit must find.

    recipe.toml    the resolved recipe
    source.json    what was read: names, counts, a digest of the encoded log
    split.csv      the part (train, validation, test) of every case
    history.jsonl  the report of every epoch, a line each
    checkpoint/    the last whole epoch, train.safetensors, and finish.safetensors
    tensorboard/   scalars, where asked for

The artifact's files (see `hiddenstate.artifact.folder`) stand beside them once the fit has ended.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.artifact.files import read_json, write_atomically, write_json
from hiddenstate.errors import UsageError
from hiddenstate.schema import EventLog

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

    def note_source(self, name: str, log: EventLog, *, resume: bool) -> None:
        """Save what was read; on resume it must be what was read before."""
        source = {
            "source": name,
            "cases": log.cases,
            "events": log.events,
            "digest": digest(log),
        }
        before = self.path / SOURCE
        if resume and before.exists():
            self._require_same("events", _text(read_json(before)), _text(source))
        write_json(before, source)

    def note_split(self, parts: tuple[EventLog, EventLog, EventLog]) -> None:
        """Save the part of every case."""
        lines = ["case,part"]
        for part, log in zip(("train", "validation", "test"), parts, strict=True):
            quoted = ('"' + str(name).replace('"', '""') + '"' for name in log.case_ids)
            lines += [f"{name},{part}" for name in quoted]
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


def _text(source: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} {source.get(name)!s:.12}" for name in ("cases", "events", "digest"))


def _place(report: Mapping[str, Any]) -> tuple[str, int]:
    return report["phase"], report["epoch"]


def digest(log: EventLog) -> str:
    """SHA-256 over a log's cases, times and columns."""
    total = hashlib.sha256("\n".join(map(str, log.case_ids)).encode())
    total.update(np.ascontiguousarray(log.offsets).data)
    for name, column in sorted(log.categorical.items()):
        total.update("\n".join([name, *column.labels]).encode())
        total.update(np.ascontiguousarray(column.codes).data)
    for name, values in sorted(log.numeric.items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(values).data)
    if log.time_us is not None:
        total.update(np.ascontiguousarray(log.time_us).data)
    return total.hexdigest()
