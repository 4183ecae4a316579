"""Findings, and the catalogue of the rules that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hiddenstate.charts import Picture as Picture

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

Nothing: Mapping[str, Any] = MappingProxyType({})


class Severity(StrEnum):
    """How bad a finding is.

    error:   the numbers are wrong: a result depends on what it must not depend on, or nothing can
             be learned
    warning: it will remember or learn worse than it could, on strong evidence
    note:    a fact worth knowing
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """What a rule has to say about one place of a model.

    where:    the layer, unit, output or argument
    measured: a sentence with the numbers
    values:   the same numbers by name
    """

    rule: Rule
    severity: Severity
    where: str
    measured: str
    values: Mapping[str, float] = field(default_factory=dict)
    picture: Picture | None = None

    @property
    def code(self) -> str:
        """The rule's code."""
        return self.rule.code

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values, without its picture."""
        return {
            "code": self.rule.code,
            "name": self.rule.name,
            "severity": str(self.severity),
            "where": self.where,
            "measured": self.measured,
            "values": dict(self.values),
            "limits": dict(self.rule.limits),
            "because": self.rule.because,
            "remedy": self.rule.remedy,
        }


class Skip(Exception):
    """A rule cannot be asked of this module and batch; the message says why."""


Check = Callable[["Examination"], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """A check with its place in the catalogue.

    code:     HS1.. correctness, HS2.. memory and gradients through time, HS3.. gates and units,
              HS4.. weights and dynamics, HS5.. training, HS6.. data and scores
    severity: the usual one; a finding may be milder
    asks:     the question in words, answered by yes where the model is healthy
    because:  why it matters
    remedy:   what to try
    limits:   thresholds by name
    """

    code: str
    name: str
    severity: Severity
    asks: str
    because: str
    remedy: str
    limits: Mapping[str, float]
    check: Check

    def finding(
        self,
        where: str,
        measured: str,
        values: Mapping[str, float] = Nothing,
        *,
        severity: Severity | None = None,
        picture: Picture | None = None,
    ) -> Finding:
        """Return a finding of this rule."""
        return Finding(self, severity or self.severity, where, measured, values, picture)

    def to_json(self) -> dict[str, Any]:
        """Return the definition as JSON values."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": str(self.severity),
            "asks": self.asks,
            "limits": dict(self.limits),
            "because": self.because,
            "remedy": self.remedy,
        }


CATALOGUE: dict[str, Rule] = {}
"""Every rule by its code."""


def rule(
    code: str,
    name: str,
    severity: Severity,
    *,
    asks: str,
    because: str,
    remedy: str,
    limits: Mapping[str, float] = Nothing,
) -> Callable[[Callable[[Examination, Rule], Iterable[Finding]]], Rule]:
    """Enter a check into the catalogue; the function becomes its Rule.

    The function takes an Examination and its own Rule, yields `rule.finding(...)` and raises Skip
    where it cannot be asked.
    """

    def enter(function: Callable[[Examination, Rule], Iterable[Finding]]) -> Rule:
        if code in CATALOGUE:
            raise ValueError(f"{code} is {CATALOGUE[code].name} already")

        def check(seen: Examination) -> Iterable[Finding]:
            return function(seen, entered)

        entered = Rule(code, name, severity, asks, because, remedy, limits, check)
        CATALOGUE[code] = entered
        return entered

    return enter
