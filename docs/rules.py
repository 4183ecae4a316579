"""The text of docs/rules.md, from the catalogue of rules and the faults planted for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.faults.plant import FAULTS, Fault

from hiddenstate.diagnose import checks  # noqa: F401 - enters all rules
from hiddenstate.diagnose.finding import CATALOGUE, Rule

PAGE = Path(__file__).parent / "rules.md"
THEMES = {
    "HS1": "Correctness: what a result depends on",
    "HS2": "Memory and gradients through time",
    "HS3": "Gates and units",
    "HS4": "Weights and dynamics",
    "HS5": "Training",
    "HS6": "Data and scores",
}
INTRODUCTION = """# Rules

Written by `python -m docs.generate` from the code; a test holds it to that.

`hiddenstate diagnose RUN` and `hiddenstate.diagnose.examine(module, batch, loss)` ask a model these
questions. A finding is an **error** (the numbers are wrong: the result depends on what it must not
depend on, or nothing can be learned), a **warning** (it will remember or learn worse than it could,
on strong evidence) or a **note** (a fact worth knowing). A model is healthy without errors and
warnings. A rule may find something milder than the severity that stands here.

A rule that cannot be asked of a model says why: no lengths were given, there is no loss. Rules are
chosen by `--only HS101,HS2` and left out by `--ignore`; `--fail-on error` is for use in continuous
integration: exit code 3 where something so bad was found.

The faults named under a rule are planted in `tests/faults`: the rule has to find each of them, and
has to be silent on the same model with the remedy applied."""


def page() -> str:
    """Return the whole page."""
    rules = [CATALOGUE[code] for code in sorted(CATALOGUE)]
    parts = [INTRODUCTION, "\n".join(_overview(rules))]
    for theme, own in groupby(rules, lambda rule: rule.code[:3]):
        parts.append(f"## {THEMES[theme]}")
        parts += [part for rule in own for part in _rule(rule)]
    return "\n\n".join(parts) + "\n"


def _overview(rules: list[Rule]) -> Iterator[str]:
    yield "| rule | severity | asks |"
    yield "|---|---|---|"
    for rule in rules:
        anchor = f"{rule.code}-{rule.name}".lower()
        yield f"| [{rule.code}](#{anchor}) {rule.name} | {rule.severity} | {rule.asks} |"


def _rule(rule: Rule) -> Iterator[str]:
    yield f"### {rule.code} {rule.name}"
    yield f"{rule.asks} (*{rule.severity}*)"
    yield f"**Why.** {rule.because}"
    yield f"**Try.** {rule.remedy}"
    if rule.limits:
        told = ", ".join(f"{name.replace('_', ' ')} {each:g}" for name, each in rule.limits.items())
        yield f"**Limits.** {told}"
    found = [each for each in FAULTS.values() if rule.code in each.codes]
    if found:
        yield "\n".join(["**Found in the tests.**", "", *map(_fault, found)])


def _fault(fault: Fault) -> str:
    source = f" ({fault.source})" if fault.source else ""
    return f"- {fault.name}{source}"
