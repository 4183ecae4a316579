"""See what a recurrent model's memory does, and where it is broken.

    from hiddenstate.diagnose import Watch, examine, trace

    report = examine(module, (x, lengths), loss)     # every rule that applies
    print(report.words())
    watch = Watch(module, optimiser)                 # cheap checks while it trains

Every rule, what it asks and what to try: docs/rules.md.
"""

from __future__ import annotations

from hiddenstate.diagnose.examine import examine
from hiddenstate.diagnose.finding import CATALOGUE, Finding, Rule, Severity
from hiddenstate.diagnose.influence import Influence, influence
from hiddenstate.diagnose.report import Report
from hiddenstate.diagnose.tracing.capture import trace
from hiddenstate.diagnose.tracing.record import LayerTrace, Trace
from hiddenstate.diagnose.watching.watch import Watch

__all__ = [
    "CATALOGUE",
    "Finding",
    "Influence",
    "LayerTrace",
    "Report",
    "Rule",
    "Severity",
    "Trace",
    "Watch",
    "examine",
    "influence",
    "trace",
]
