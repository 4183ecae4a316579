"""What a wrong input is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.journeys import logs

LOG = logs.csv()
QUICK = "--epochs 1 --threads 1 --set train.finish_epochs=0"
FIT = f"fit log.csv --out out {QUICK}"
GOOD = f"fit log.csv --out run {QUICK}"


@dataclass(frozen=True)
class Wrong:
    """A command that cannot work, in a folder that holds log.csv and `run`, a good artifact.

    command: what is typed after `hiddenstate`
    words:   what the message must name
    files:   written into the folder before
    damage:  done to the folder before
    code:    exit code expected
    """

    name: str
    command: str
    words: tuple[str, ...]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    damage: Callable[[Path], object] = lambda _: None
    code: int = 1

    def prepare(self, folder: Path) -> None:
        """Write the files into a folder that holds `run`."""
        for name, content in {"log.csv": LOG, **self.files}.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        self.damage(folder)


def change(edit: Callable[[int, list[str]], list[str]]) -> str:
    """Return the log with the fields of every row edited; rows count from 0."""
    head, *body = LOG.splitlines()
    edited = (",".join(edit(row, line.split(","))) for row, line in enumerate(body))
    return "\n".join([head, *edited]) + "\n"
