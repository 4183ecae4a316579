"""Pairs of texts, a source and its target: read, rid of repetitions, shared out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hiddenstate.data.stream import check_utf8, utf8_chunks
from hiddenstate.data.tables import from_pandas
from hiddenstate.errors import DataError, UsageError

SHOWN = 5


@dataclass(frozen=True)
class Pairs:
    """Sources and their targets, of one order; neither has an empty text."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.sources)

    def select(self, rows: Iterable[int]) -> Pairs:
        """Return some pairs, in the order given."""
        chosen = list(rows)
        return Pairs(
            tuple(self.sources[row] for row in chosen), tuple(self.targets[row] for row in chosen)
        )


def read_pairs(
    source: Any,
    target: str | Path | None = None,
    *,
    encoding: str = "utf-8",
    drop_bad: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Pairs:
    """Read pairs from a file, from two aligned files, or from a polars or pandas frame.

    source:   a file with `source<tab>target` on each line, or (with `target`) one source on each;
              a frame has two columns of text. Files may be compressed (.gz)
    target:   a file whose line i belongs to line i of the source
    drop_bad: leave out lines that are no pair (empty on a side, not two columns), and tell of
              them; else they are refused

    Spaces around a text are no part of it. Raises DataError, with line numbers, where the files
    have unequal numbers of lines, are not in the encoding, or hold lines that are no pair.
    """
    if not isinstance(source, str | Path):
        columns, name = _columns(source), "The table"
    elif target is not None:
        name = f"{source} and {target}"
        columns = [read_lines(Path(path), encoding) for path in (source, target)]
        _require_aligned(columns, (source, target))
    else:
        name = str(source)
        columns = _cut(read_lines(Path(source), encoding), name, drop_bad)
    texts = [[text.strip() for text in column] for column in columns]
    bad = [row for row, both in enumerate(zip(*texts), start=1) if not all(both)]
    if bad and not drop_bad:
        raise DataError(
            f"{name}: {_counted(len(bad), 'line')} without text on a side ({_listed(bad)}).",
            "Each source has a target, and each target a source.",
            "Correct the lines, or leave them out with --allow-bad-rows.",
        )
    if bad:
        tell(f"Dropped {_counted(len(bad), 'line')}, each no pair ({_listed(bad)}).")
    full = [both for both in zip(*texts) if all(both)]
    if not full:
        raise DataError(
            f"{name}: there are no pairs.",
            "Each line holds a source and its target, parted by a tab, or each file has its own.",
            "Give a file with pairs in it.",
        )
    sources, targets = zip(*full)
    return Pairs(sources, targets)


def drop_repeated(pairs: Pairs, tell: Callable[[str], None] = lambda _: None) -> Pairs:
    """Leave out pairs that stood before, and tell of them."""
    first: dict[tuple[str, str], int] = {}
    for row, both in enumerate(_both(pairs)):
        first.setdefault(both, row)
    if len(first) < len(pairs):
        count = _counted(len(pairs) - len(first), "pair")
        tell(f"Dropped {count}: repetitions of an earlier one.")
    return pairs.select(first.values())


def drop_seen(
    pairs: Pairs, held_back: Sequence[Pairs], tell: Callable[[str], None] = lambda _: None
) -> Pairs:
    """Leave out training pairs that stand in a held-back part too, and tell of them."""
    seen = {both for part in held_back for both in _both(part)}
    rows = [row for row, both in enumerate(_both(pairs)) if both not in seen]
    if len(rows) < len(pairs):
        count = _counted(len(pairs) - len(rows), "training pair")
        tell(f"Dropped {count}: a held-back part has them too.")
    return pairs.select(rows)


def split_pairs(
    pairs: Pairs, *, validation: float = 0.1, test: float = 0.1
) -> tuple[Pairs, Pairs, Pairs]:
    """Share pairs out by their place: the first train, then some validate, the last test.

    Raises UsageError for shares that do not fit, DataError for too few pairs.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise UsageError(
            f"The shares are {validation} for validation and {test} for test.",
            "They must not be negative, and must leave pairs to train on (sum below 1).",
            "Choose others, such as 0.1 and 0.1.",
        )
    tested, validated = (max(round(len(pairs) * s), 1) if s else 0 for s in (test, validation))
    cut = len(pairs) - tested - validated
    if cut < 1:
        raise DataError(
            f"There {'is 1 pair' if len(pairs) == 1 else f'are {len(pairs)} pairs'}.",
            "Training, validation and test each need at least one.",
            "Give more pairs, or files for validation and test.",
        )
    train, valid, last = np.split(np.arange(len(pairs)), [cut, cut + validated])
    return pairs.select(train), pairs.select(valid), pairs.select(last)


def _columns(frame: Any) -> list[list[str]]:
    table = frame if isinstance(frame, pl.DataFrame) else from_pandas(frame)
    if table.width != 2 or any(kind != pl.String for kind in table.dtypes):
        raise DataError(
            f"The table has the columns {dict(table.schema)}.",
            "Two columns of text were expected: the source and the target.",
            "Select them, in this order.",
        )
    return [[text or "" for text in table[name].to_list()] for name in table.columns]


def read_lines(path: Path, encoding: str) -> list[str]:
    """Return the lines of a text file, compressed or not; DataError for another encoding."""
    raw = b"".join(utf8_chunks(path, encoding))
    check_utf8(raw, path, 0, 1)
    lines = raw.decode().replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _require_aligned(columns: Sequence[Sequence[str]], files: Sequence[object]) -> None:
    first, second = columns
    if len(first) != len(second):
        short = int(len(first) > len(second))
        raise DataError(
            f"{files[0]} has {len(first):,} lines, {files[1]} has {len(second):,}.",
            "Line i of the one translates line i of the other.",
            f"Line {len(columns[short]) + 1:,} of {files[1 - short]} has no partner: see whether a "
            "line is lost, or two were joined.",
        )


def _cut(lines: Sequence[str], name: str, drop_bad: bool) -> list[list[str]]:
    """Cut lines at their tab; one that has not exactly one gives no text, or is refused."""
    rows = [line.split("\t") for line in lines]
    wrong = [place for place, row in enumerate(rows, start=1) if len(row) != 2]
    if wrong and not drop_bad:
        columns = _counted(len(rows[wrong[0] - 1]), "column")
        raise DataError(
            f"{name}: line {wrong[0]} has {columns}, parted by tabs; "
            f"{_counted(len(wrong), 'line')} in all have not two ({_listed(wrong)}).",
            "Each line holds a source, one tab and its target.",
            "Cut other columns off (cut -f1,2), give the targets as a file of their own, or leave "
            "such lines out with --allow-bad-rows.",
        )
    rows = [row if len(row) == 2 else ["", ""] for row in rows]
    return [[row[side] for row in rows] for side in (0, 1)]


def _both(pairs: Pairs) -> list[tuple[str, str]]:
    return list(zip(pairs.sources, pairs.targets))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _listed(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:SHOWN]))
    return f"line{'s' * (len(rows) > 1)} {shown}{', ...' * (len(rows) > SHOWN)}"
