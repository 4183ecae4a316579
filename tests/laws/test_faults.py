"""Every rule finds its planted faults, and is silent once they are mended.

One instance of each kind but those held out; benchmarks/diagnose.py draws more, and scores all.
"""

from __future__ import annotations

import pytest

import tests.faults  # noqa: F401  enters every kind
from hiddenstate.diagnose.finding import CATALOGUE, Rule, Severity
from tests.faults.plant import FAULTS, HELD_OUT, Case, Fault, drawn

KINDS = {name: fault for name, fault in FAULTS.items() if name not in HELD_OUT}


def codes(case: Case) -> set[str]:
    return {each.code for each in case.findings()}


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_rule_has_a_fault(code: str) -> None:
    assert any(code in fault.codes for fault in KINDS.values())


@pytest.mark.parametrize("fault", KINDS.values(), ids=KINDS)
def test_a_fault_is_found_and_its_remedy_works(fault: Fault) -> None:
    assert set(fault.codes) <= set(CATALOGUE)
    assert codes(drawn(fault.draw, fault.name, 0)) & set(fault.codes)
    assert not codes(drawn(fault.remedied, fault.name, 0)) & set(fault.codes)


@pytest.mark.parametrize("rule", CATALOGUE.values(), ids=CATALOGUE)
def test_a_rule_says_why_it_matters_and_what_to_try(rule: Rule) -> None:
    sentences = (rule.asks, rule.because, rule.remedy)
    assert all(len(each) > 20 and each[0].isupper() for each in sentences)
    assert rule.severity in Severity
