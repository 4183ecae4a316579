"""The rules about gates, asked of a few rows again and again: what lasts is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hiddenstate.diagnose.finding import CATALOGUE, Finding, Skip
from hiddenstate.diagnose.tracing.record import LayerTrace, Trace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

GATES = ("HS301", "HS302", "HS303", "HS304", "HS305", "HS306")
"""Rules that need no more than a trace."""

LOOKS = 3
"""Looks in a row that have to say the same: at the start of a training gates may be anywhere."""


@dataclass(frozen=True)
class Traced:
    """As much of an Examination as those rules ask for."""

    trace: Trace


class Lasting:
    """Findings that were made in each of the last looks."""

    def __init__(self) -> None:
        """Begin without a look."""
        self._looks: deque[dict[tuple[str, str], Finding]] = deque(maxlen=LOOKS)

    def look(self, layers: Sequence[LayerTrace]) -> None:
        """Ask the rules of what was traced; nothing traced is no look."""
        if not layers:
            return
        seen = cast("Examination", Traced(Trace(tuple(layers), ())))
        found: dict[tuple[str, str], Finding] = {}
        for code in GATES:
            try:
                found |= {(code, each.where): each for each in CATALOGUE[code].check(seen)}
            except Skip:
                continue
        self._looks.append(found)

    def findings(self, ignored: Iterable[str] = ()) -> list[Finding]:
        """Return the findings of the last look that those before it made as well."""
        if len(self._looks) < LOOKS:
            return []
        left_out = set(ignored)
        return [
            finding
            for key, finding in self._looks[-1].items()
            if key[0] not in left_out and all(key in each for each in self._looks)
        ]
