"""Thirty-odd wrong inputs: how each is made, the command it is given to, and what must be said.

`benchmarks/wrong_inputs.py` writes the messages to docs/results/wrong_inputs.md; the tests run
the same list.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOG = "case,activity,timestamp,amount\n" + "".join(
    f"c{case},{activity},2024-01-{1 + case // 4:02d}T0{hour}:{case % 4}0:00,{case % 7}\n"
    for case in range(150)
    for hour, activity in enumerate(["open", "triage" if case % 3 else "call", "solve", "close"])
)


@dataclass(frozen=True)
class Wrong:
    """A wrong input.

    make:  writes files into a folder (which holds `run`, a good artifact) and returns the command
    code:  exit code expected
    words: what the message must name
    """

    name: str
    make: Callable[[Path], list[str]]
    words: tuple[str, ...]
    code: int = 1


def _file(name: str, content: str | bytes, *flags: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["fit", str(path), "--out", str(folder / "out"), "--epochs", "1", *flags]

    return make


def _recipe(text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "recipe.toml").write_text(text)
        return _file("log.csv", LOG, "--recipe", str(folder / "recipe.toml"))(folder)

    return make


def _artifact(damage: Callable[[Path], None]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        run = folder / "damaged"
        shutil.copytree(folder / "run", run)
        damage(run)
        (folder / "log.csv").write_text(LOG)
        return ["evaluate", str(run), str(folder / "log.csv")]

    return make


def _edit_spec(run: Path) -> None:
    spec = json.loads((run / "spec.json").read_text())
    spec["embeddings"] = [7]
    (run / "spec.json").write_text(json.dumps(spec))


def _foreign(run: Path) -> None:
    (run / "manifest.json").write_text(json.dumps({"format": "other", "version": 9}))


def _cut(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / name
        path.write_bytes(path.read_bytes()[:-40])

    return damage


def _existing_out(folder: Path) -> list[str]:
    return [*_file("log.csv", LOG)(folder)[:2], "--out", str(folder / "run")]


def _missing_column(folder: Path) -> list[str]:
    text = "\n".join(line.rsplit(",", 1)[0] for line in LOG.splitlines())
    (folder / "narrow.csv").write_text(text)
    return ["predict", str(folder / "run"), str(folder / "narrow.csv")]


def _leak() -> str:
    lines = LOG.splitlines()
    rows = [f"{lines[0]},resolution"]
    for line in lines[1:]:
        closed = line.split(",")[1] == "close"
        rows.append(
            f"{line},{'refunded' if closed and hash_of(line) else 'kept' if closed else ''}"
        )
    return "\n".join(rows)


def hash_of(line: str) -> bool:
    """A fixed coin toss by the case's number."""
    return int(line.split(",")[0][1:]) % 2 == 0


def _rows(change: Callable[[int, str], str]) -> str:
    head, *body = LOG.splitlines()
    return "\n".join([head, *(change(number, line) for number, line in enumerate(body))]) + "\n"


ONE_ACTIVITY = "case,activity,timestamp\n" + "".join(
    f"c{case},only,2024-01-01T00:{case:02d}:00\n" for case in range(150)
)
XES_ENTITY = (
    '<?xml version="1.0"?>\n<!DOCTYPE log [<!ENTITY a "aaaa">]>\n<log><trace><event>'
    '<string key="concept:name" value="&a;"/></event></trace></log>'
)

WRONG: tuple[Wrong, ...] = (
    Wrong(
        "file does not exist",
        lambda folder: ["fit", str(folder / "none.csv"), "--out", str(folder / "out")],
        ("none.csv",),
    ),
    Wrong("empty file", _file("log.csv", ""), ("log.csv", "empty")),
    Wrong("header and no rows", _file("log.csv", LOG.splitlines()[0] + "\n"), ("no rows",)),
    Wrong(
        "no case column",
        _file("log.csv", LOG.replace("case,activity", "zzz,activity", 1)),
        ("--case", "zzz"),
    ),
    Wrong(
        "no activity column",
        _file("log.csv", LOG.replace("case,activity", "case,zzz", 1)),
        ("--activity", "zzz"),
    ),
    Wrong(
        "no timestamp column",
        _file("log.csv", LOG.replace("timestamp", "zzz", 1)),
        ("--timestamp", "--no-timestamp"),
    ),
    Wrong(
        "named column is not there",
        _file("log.csv", LOG, "--activity", "activty"),
        ("activty", "activity"),
    ),
    Wrong(
        "most timestamps cannot be read",
        _file("log.csv", _rows(lambda n, line: line.replace("2024", "at noon") if n % 2 else line)),
        ("row", "--time-format"),
    ),
    Wrong(
        "day and month cannot be told apart",
        _file(
            "log.csv",
            _rows(
                lambda n, line: line.replace(
                    line.split(",")[2], f"0{n % 9 + 1}/0{n % 8 + 1}/2024 10:00"
                )
            ),
        ),
        ("--time-format",),
    ),
    Wrong(
        "rows with too many fields",
        _file("log.csv", _rows(lambda n, line: line + ",x,y" if n % 3 == 0 else line)),
        ("fields", "--allow-bad-rows"),
    ),
    Wrong(
        "wrong encoding",
        _file("log.csv", LOG.replace("triage", "prüfung").encode("latin-1")),
        ("utf-8", "--encoding"),
    ),
    Wrong("not a text file", _file("log.csv", bytes(range(256)) * 40), ("log.csv",)),
    Wrong(
        "truncated gzip", _file("log.csv.gz", gzip.compress(LOG.encode())[:200]), ("log.csv.gz",)
    ),
    Wrong("not a Parquet file", _file("log.parquet", LOG), ("log.parquet",)),
    Wrong("broken JSON line", _file("log.jsonl", '{"case": "a"\n' * 9), ("log.jsonl",)),
    Wrong("broken XES", _file("log.xes", "<log><trace><event>"), ("log.xes",)),
    Wrong("XES with entity declarations", _file("log.xes", XES_ENTITY), ("entit",)),
    Wrong("unknown ending", _file("log.docx", b"PK\x03\x04" + bytes(99)), ("log.docx", "--format")),
    Wrong("one activity only", _file("log.csv", ONE_ACTIVITY, "--task", "occurs:only"), ("only",)),
    Wrong(
        "a column that gives the answer away",
        _file("log.csv", _leak()),
        ("resolution", "--allow-leaks"),
    ),
    Wrong("too few cases", _file("log.csv", "\n".join(LOG.splitlines()[:5])), ("case",)),
    Wrong("unknown task", _file("log.csv", LOG, "--task", "next_evnt"), ("next_event",), 2),
    Wrong(
        "outcome column is not there",
        _file("log.csv", LOG, "--task", "outcome:column=amont"),
        ("amont",),
    ),
    Wrong(
        "activity that never occurs",
        _file("log.csv", LOG, "--task", "occurs:clse"),
        ("clse", "close"),
    ),
    Wrong("unknown cell", _file("log.csv", LOG, "--cell", "gruu"), ("gruu", "gru"), 2),
    Wrong(
        "learning rate out of range",
        _file("log.csv", LOG, "--learning-rate", "-1"),
        ("learning_rate",),
        2,
    ),
    Wrong("recipe with an unknown key", _recipe("[train]\nepoch = 3\n"), ("epoch", "epochs"), 2),
    Wrong("recipe with a wrong type", _recipe('[train]\nepochs = "many"\n'), ("epochs", "many"), 2),
    Wrong("recipe that is not TOML", _recipe("train: 3\n"), ("TOML",), 2),
    Wrong("unknown kernel", _file("log.csv", LOG, "--kernel", "fastest"), ("fastest", "reference")),
    Wrong("--out exists", _existing_out, ("--overwrite",), 2),
    Wrong(
        "setting without a value", _file("log.csv", LOG, "--set", "train.epochs"), ("KEY=VALUE",), 2
    ),
    Wrong(
        "shares that leave nothing to train on",
        _file("log.csv", LOG, "--test", "0.6", "--validation", "0.5"),
        ("0.6", "0.5"),
    ),
    Wrong(
        "not an artifact",
        lambda folder: ["evaluate", str(folder), str(folder / "x.csv")],
        ("manifest.json",),
    ),
    Wrong("artifact of another format", _artifact(_foreign), ("format",)),
    Wrong(
        "artifact without weights",
        _artifact(lambda run: (run / "weights.safetensors").unlink()),
        ("weights.safetensors",),
    ),
    Wrong("artifact with truncated weights", _artifact(_cut("weights.safetensors")), ("damaged",)),
    Wrong("artifact with an edited specification", _artifact(_edit_spec), ("spec.json",)),
    Wrong("input column missing at prediction", _missing_column, ("amount",)),
    Wrong(
        "unfinished run",
        _artifact(
            lambda run: (
                (run / "manifest.json").unlink(),
                (run / "checkpoint").mkdir(exist_ok=True),
            )
        ),
        ("--resume",),
    ),
)
