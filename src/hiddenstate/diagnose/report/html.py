"""A report as one HTML file: the verdict and what is wrong first, then pictures, then the rules."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING

from hiddenstate.charts import document, figure
from hiddenstate.diagnose.finding import Finding, Rule, Severity
from hiddenstate.diagnose.report.pictures import Group, groups
from hiddenstate.diagnose.report.words import PLACES, by_rule, limits, verdict

if TYPE_CHECKING:
    from hiddenstate.diagnose.report.report import Report

SIGNS = {Severity.ERROR: "✕", Severity.WARNING: "!", Severity.NOTE: "i"}
# Groups of pictures that are open at first: scores, memory through time, one layer.
OPENED = 3
SEVERITIES = (
    "<p class=note>Error: the numbers are wrong, or nothing can be learned. Warning: it will "
    "remember or learn worse than it could. Note: a fact worth knowing. Healthy means no error "
    "and no warning.</p>"
)


def page(report: Report) -> str:
    """Return the whole page."""
    parts = [
        _head(report),
        _findings(report),
        _facts(report),
        *(_pictures(group, opened=k < OPENED) for k, group in enumerate(groups(report))),
        _rules(report),
    ]
    style = resources.files("hiddenstate.diagnose.report").joinpath("report.css")
    said = "healthy" if report.healthy else "not healthy"
    title = f"{report.title}: {said}"
    return document(title, "\n".join(parts), style.read_text(encoding="utf-8"))


def _head(report: Report) -> str:
    tone = "good" if report.healthy else str(report.worst)
    first, _, rest = verdict(report).partition(":")
    sign = "✓" if report.healthy else SIGNS[report.worst or Severity.NOTE]
    return (
        f'<header class="verdict {tone}"><span class="sign" aria-hidden="true">{sign}</span>'
        f"<div><h1>{_text(first)}</h1>"
        f'<p class="said">{_text(rest.strip().capitalize())}</p>'
        f'<p class="title">{_text(report.title)}</p></div></header>'
    )


def _findings(report: Report) -> str:
    """Return a card for each rule that found something, its places one after another."""
    cards = [_card(each) for each in by_rule(report.findings)]
    if not cards:
        return ""
    return (
        f'<section aria-label="Findings"><h2>What was found</h2>{"".join(cards)}'
        f"{SEVERITIES}</section>"
    )


def _card(found: list[Finding]) -> str:
    rule, severity = found[0].rule, found[0].severity
    places = [
        f'<p class="measured"><code>{_text(each.where)}</code> {_text(each.measured)}</p>'
        for each in found
    ]
    drawn = [figure(each.picture) for each in found if each.picture is not None]
    drawings = (
        f'<div class="drawn">{drawn[0]}{_folded(drawn[1:], "picture")}</div>' if drawn else ""
    )
    return (
        f'<article class="finding {severity}"><div class="told"><header>'
        f'<span class="badge">{SIGNS[severity]} {str(severity).capitalize()}</span>'
        f"<h3>{_text(rule.name)} <code>{_text(rule.code)}</code></h3></header>"
        f"{''.join(places[:PLACES])}{_folded(places[PLACES:], 'place')}"
        f"<dl><dt>Try</dt><dd>{_text(rule.remedy)}</dd>"
        f"<dt>Why it matters</dt><dd>{_text(rule.because)}</dd>{_limits(rule)}</dl></div>"
        f"{drawings}</article>"
    )


def _folded(parts: list[str], name: str) -> str:
    if not parts:
        return ""
    said = f"{len(parts)} more {name}{'s' * (len(parts) > 1)}"
    return f'<details class="more"><summary>{said}</summary>{"".join(parts)}</details>'


def _limits(rule: Rule) -> str:
    told = limits(rule)
    return f"<dt>Limit</dt><dd>{_text(told)}</dd>" if told else ""


def _facts(report: Report) -> str:
    facts: Mapping[str, str] = report.facts
    if not facts:
        return ""
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(each)}</dd>" for name, each in facts.items())
    remarks = () if report.trace is None else report.trace.remarks
    notes = "".join(f'<p class="note">{_text(each)}</p>' for each in remarks)
    return f'<section><h2>What was examined</h2><dl class="facts">{rows}</dl>{notes}</section>'


def _pictures(group: Group, *, opened: bool) -> str:
    """Return a group of figures; those of later layers are shown when they are asked for."""
    drawn = f'<div class="figures">{"".join(map(figure, group.pictures))}</div>'
    return (
        f'<details class="group"{" open" * opened}><summary><h2>{_text(group.title)}</h2>'
        f'</summary><p class="note">{_text(group.note)}</p>{drawn}</details>'
    )


def _rules(report: Report) -> str:
    """Return every rule with its definition: those that passed, found something, were skipped."""
    fired = {each.code: each.rule for each in report.findings}
    parts = [
        _listed("Passed", ((rule, "") for rule in report.passed)),
        _listed("Not asked", report.skipped),
        _listed("Found something", ((rule, "") for rule in fired.values())),
    ]
    return f"<section><h2>The rules</h2>{''.join(parts)}</section>"


def _listed(title: str, rules: Iterable[tuple[Rule, str]]) -> str:
    items = list(_definitions(rules))
    if not items:
        return ""
    return f'<h3>{title} ({len(items)})</h3><div class="rules">{"".join(items)}</div>'


def _definitions(rules: Iterable[tuple[Rule, str]]) -> Iterator[str]:
    for rule, reason in rules:
        why = f'<span class="note">{_text(reason)}</span>' if reason else ""
        yield (
            f"<details><summary><code>{_text(rule.code)}</code> {_text(rule.asks)} {why}"
            f"</summary><dl><dt>Name</dt><dd>{_text(rule.name)}, usually "
            f"{rule.severity}</dd>{_limits(rule)}<dt>Why it matters</dt>"
            f"<dd>{_text(rule.because)}</dd><dt>What to try</dt><dd>{_text(rule.remedy)}</dd></dl>"
            "</details>"
        )


def _text(text: str) -> str:
    return html.escape(text)
