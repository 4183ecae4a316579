"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.data.blocks import Block, gather
from hiddenstate.data.options import Options
from hiddenstate.data.report import Faults
from hiddenstate.data.stream import check_utf8, utf8_chunks
from hiddenstate.errors import DataError


def read_jsonlines(path: Path, options: Options, faults: Faults) -> Iterator[Block]:
    """Yield the objects of a file; a line that is no JSON object is counted and left out.

    Raises DataError for wrong encoding and for a file that is one JSON array.
    """
    return gather(json_objects(path, options, faults), faults)


def json_objects(
    path: Path, options: Options, faults: Faults
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield row and object of each line; a line that is no JSON object is counted and left out."""
    for row, line in numbered_lines(path, options):
        if row == 1 and line.lstrip().startswith(b"["):
            raise DataError(
                f"{path} is one JSON array.",
                "JSON lines were expected: one object a line.",
                "Convert it, for example with: jq -c '.[]' FILE.",
            )
        if not line.strip():
            faults.note("blank", faults.number(np.array([row])))
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield row, record
        else:
            faults.note("bad_record", faults.number(np.array([row])), [line[:60].decode()])


def numbered_lines(path: Path, options: Options) -> Iterator[tuple[int, bytes]]:
    """Yield number, from 1, and UTF-8 bytes of each line; raises DataError for wrong encoding."""
    rest, offset, row = b"", 0, 1
    for chunk in utf8_chunks(path, options.encoding):
        head, newline, tail = (rest + chunk).rpartition(b"\n")
        rest = tail
        if newline:
            check_utf8(head, path, offset, row)
            lines = head.split(b"\n")
            yield from enumerate(lines, row)
            offset, row = offset + len(head) + 1, row + len(lines)
    if rest:
        check_utf8(rest, path, offset, row)
        yield row, rest
