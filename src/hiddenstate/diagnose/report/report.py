"""What an examination found, and how it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddenstate.artifact.files import write_atomically
from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity
from hiddenstate.diagnose.report.words import lines

if TYPE_CHECKING:
    from hiddenstate.diagnose.tracing.record import Trace


@dataclass(frozen=True)
class Report:
    """What the rules found in one model on one batch.

    title:    what was examined
    facts:    about the model and the batch, as {"layers": "lstm 32, lstm 32", "rows": "16"}
    findings: worst first, whatever order they came in
    skipped:  rules that could not be asked, and why
    passed:   rules that were asked and found nothing
    trace:    the pass that the pictures of states, gates and gradients are drawn from
    pictures: others, as the score by length
    row:      of the trace, shown step by step; the longest one where None
    events:   names of that row's steps, where they are known
    """

    title: str
    facts: Mapping[str, str]
    findings: tuple[Finding, ...]
    skipped: tuple[tuple[Rule, str], ...] = ()
    passed: tuple[Rule, ...] = ()
    trace: Trace | None = None
    pictures: tuple[Picture, ...] = ()
    row: int | None = None
    events: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranked = sorted(self.findings, key=lambda each: (each.severity.rank, each.code))
        object.__setattr__(self, "findings", tuple(ranked))

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None without one."""
        return self.findings[0].severity if self.findings else None

    @property
    def healthy(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return self.worst in (None, Severity.NOTE)

    @property
    def counts(self) -> dict[Severity, int]:
        """The number of findings of each severity."""
        severities = [each.severity for each in self.findings]
        return {severity: severities.count(severity) for severity in Severity}

    def words(self, width: int = 88) -> str:
        """Return the report as plain text: the verdict, what was found, what was not asked."""
        return "\n".join(line.text for line in lines(self, width)) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return everything but trace and pictures as JSON values; numbers without end as None."""
        return {
            "title": self.title,
            "healthy": self.healthy,
            "worst": None if self.worst is None else str(self.worst),
            "counts": {str(severity): count for severity, count in self.counts.items()},
            "facts": dict(self.facts),
            "findings": [_finite(each.to_json()) for each in self.findings],
            "passed": [{"code": rule.code, "name": rule.name} for rule in self.passed],
            "skipped": [
                {"code": rule.code, "name": rule.name, "reason": reason}
                for rule, reason in self.skipped
            ],
        }

    def save_html(self, path: str | Path) -> None:
        """Write one HTML file that needs no other and no network, whole or not at all."""
        from hiddenstate.diagnose.report.html import page

        write_atomically(Path(path), page(self).encode())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
