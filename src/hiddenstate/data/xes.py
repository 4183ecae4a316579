"""XES (IEEE 1849) as a stream: events are given out as the parser meets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from hiddenstate.data.blocks import Block, gather
from hiddenstate.data.options import Options
from hiddenstate.data.report import Faults
from hiddenstate.data.stream import open_bytes, read_chunk
from hiddenstate.errors import DataError

CASE = "case:concept:name"
VALUES = {"string", "date", "int", "float", "boolean", "id"}
CONTAINERS = {"list", "container"}


def read_xes(path: Path, options: Options, faults: Faults) -> Iterator[Block]:
    """Yield the events; an attribute of the trace becomes a column 'case:' + its key.

    Rows are line numbers of the XML. Nested attributes are ignored and counted. Raises DataError
    for XML that is not well-formed, that declares a document type or entities, or is no XES.
    """
    del options
    return gather(_events(path, faults), faults)


def _events(path: Path, faults: Faults) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = _Reader(path, faults)
    with open_bytes(path) as file:
        while chunk := read_chunk(file, path):
            reader.feed(chunk, last=False)
            yield from reader.taken()
    reader.feed(b"", last=True)
    yield from reader.taken()
    if not reader.is_log:
        raise DataError(
            f"{path} is XML, but has no <log> element.",
            "XES holds <log>, <trace> and <event> elements.",
            "Check that the file is an event log.",
        )


class _Reader:
    """Keeps the attributes of the open trace and the open event, nothing else."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path, self.faults = path, faults
        self.is_log = False
        self._open: list[str] = []
        self._trace: dict[str, str] = {}
        self._event: dict[str, str] | None = None
        self._line = 0
        self._traces = 0
        self._found: list[tuple[int, dict[str, str]]] = []
        self._waiting: list[tuple[int, dict[str, str]]] = []
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse

    def feed(self, chunk: bytes, last: bool) -> None:
        try:
            self._parser.Parse(chunk, last)
        except expat.ExpatError as error:
            raise DataError(
                f"{self.path} is not well-formed XML: {error}.",
                "A whole XES file was expected.",
                "Export the log again.",
            ) from None

    def taken(self) -> list[tuple[int, dict[str, str]]]:
        found, self._found = self._found, []
        return found

    def _refuse(self, *declaration: object) -> None:
        raise DataError(
            f"{self.path} declares {declaration[0]!r} in line {self._parser.CurrentLineNumber}.",
            "XES needs no document type and no entities, and they can be used to attack a reader.",
            "Remove the <!DOCTYPE ...> part if you trust the file.",
        )

    def _start(self, tag: str, given: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        parent = self._open[-1] if self._open else ""
        self._open.append(tag)
        if tag == "log":
            self.is_log = True
        elif tag == "trace":
            self._trace, self._waiting = {}, []
            self._traces += 1
            self._line = self._parser.CurrentLineNumber
        elif tag == "event" and parent == "trace":
            self._event = {}
            self._line = self._parser.CurrentLineNumber
        elif tag in VALUES and "key" in given:
            if parent == "event" and self._event is not None:
                self._event[given["key"]] = given.get("value", "")
            elif parent == "trace":
                self._trace[f"case:{given['key']}"] = given.get("value", "")
            elif {"trace", "event"} & set(self._open):
                self._nested(given["key"])
        elif tag in CONTAINERS and parent in ("trace", "event"):
            self._nested(given.get("key", tag))

    def _end(self, tag: str) -> None:
        tag = self._open.pop()
        if tag == "event" and self._event is not None:
            self._waiting.append((self._line, self._event))
            self._event = None
        elif tag == "trace":
            self._close_trace()

    def _close_trace(self) -> None:
        # Attributes of a trace may stand after its events, so events wait for the end of theirs.
        if not self._trace.get(CASE, "").strip():
            self._trace[CASE] = f"trace {self._traces}"
            self._note("unnamed_case")
        if not self._waiting:
            self._note("empty_case")
        self._found.extend((line, {**self._trace, **event}) for line, event in self._waiting)

    def _nested(self, key: str) -> None:
        self._note("nested", [key])

    def _note(self, code: str, examples: list[str] | None = None) -> None:
        rows = self.faults.number(np.array([self._line]))
        self.faults.note(code, rows, examples or [])
