"""A report in words: the verdict first, then the findings, worst first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from hiddenstate.diagnose.finding import Finding, Rule, Severity

if TYPE_CHECKING:
    from hiddenstate.diagnose.report.report import Report

Tone = Literal["good", "error", "warning", "note", "plain", "quiet"]


PLACES = 5
"""Places of one rule that are told; a report as JSON or HTML has them all."""


class Line(NamedTuple):
    """A line of text, and what it is: the terminal's colour follows from it."""

    text: str
    tone: Tone = "plain"


def verdict(report: Report) -> str:
    """Return one sentence: healthy or not, and what was found.

    It speaks of nothing that was not asked.
    """
    asked = len(report.passed) + len({each.code for each in report.findings})
    if not asked:
        return "Nothing could be asked: no rule applies."
    found = [_count(n, str(severity)) for severity, n in report.counts.items() if n]
    if report.healthy:
        found = ["no error", "no warning", *found]
    said = "Healthy" if report.healthy else "Not healthy"
    return f"{said}: {', '.join(found)} ({_count(asked, 'rule')} asked)."


def limits(rule: Rule) -> str:
    """Return the thresholds of a rule in words, as "largest change 1e-05"; "" without any."""
    return ", ".join(
        f"{name.replace('_', ' ')} {number(each)}" for name, each in rule.limits.items()
    )


def by_rule(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return sorted findings in groups of the same rule and severity."""

    def same(finding: Finding) -> tuple[int, str]:
        return finding.severity.rank, finding.code

    return [list(group) for _, group in groupby(findings, same)]


def unasked(report: Report) -> dict[str, list[str]]:
    """Return the codes of the rules that were skipped, by the reason."""
    by_reason: dict[str, list[str]] = {}
    for rule, reason in report.skipped:
        by_reason.setdefault(reason, []).append(rule.code)
    return by_reason


def lines(report: Report, width: int = 88) -> Iterator[Line]:
    """Yield the report line by line, none longer than width where its words allow it."""
    yield Line(verdict(report), "good" if report.healthy else _tone(report.worst))
    yield from _wrapped("", report.title, width, "quiet")
    for name, fact in report.facts.items():
        yield from _wrapped(f"{name}: ", fact, width, "quiet")
    for found in by_rule(report.findings):
        rule, severity = found[0].rule, found[0].severity
        yield Line("")
        yield Line(f"{severity.upper()} {rule.code} {rule.name}", _tone(severity))
        for each in found[:PLACES]:
            yield from _wrapped(f"{each.where}: ", each.measured, width)
        if len(found) > PLACES:
            yield Line(f"  and {_count(len(found) - PLACES, 'place')} more", "quiet")
        if limits(rule):
            yield from _wrapped("limit: ", limits(rule), width, "quiet")
        yield from _wrapped("why: ", rule.because, width)
        yield from _wrapped("try: ", rule.remedy, width)
    if report.skipped:
        yield Line("")
        yield Line(f"Not asked: {_count(len(report.skipped), 'rule')}.", "quiet")
        for reason, codes in unasked(report).items():
            yield from _wrapped(f"{', '.join(codes)}: ", reason, width, "quiet")


def number(value: float) -> str:
    """Return a number with as many digits as say something.

    >>> number(0.012345), number(1e-07), number(12345678.0), number(3.0)
    ('0.0123', '1e-07', '1.23e+07', '3')
    """
    return f"{value:.3g}"


def _count(n: int, name: str) -> str:
    return f"{n} {name}{'' if n == 1 else 's'}"


def _tone(severity: Severity | None) -> Tone:
    tones: dict[Severity | None, Tone] = {
        Severity.ERROR: "error",
        Severity.WARNING: "warning",
        Severity.NOTE: "note",
    }
    return tones.get(severity, "plain")


def _wrapped(label: str, text: str, width: int, tone: Tone = "plain") -> Iterator[Line]:
    """Yield the text folded, its later lines under its beginning."""
    indent = " " * (2 + min(len(label), 8))
    for line in textwrap.wrap(
        text, width, initial_indent=f"  {label}", subsequent_indent=indent, break_long_words=False
    ) or [f"  {label}"]:
        yield Line(line, tone)
