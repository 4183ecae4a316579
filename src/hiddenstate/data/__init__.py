"""Event logs: read, check, split, batch."""

from __future__ import annotations

from hiddenstate.data.batches import batches
from hiddenstate.data.check import Check, Finding, check
from hiddenstate.data.leaks import Leak, leaks
from hiddenstate.data.options import Options
from hiddenstate.data.read import read, read_parts
from hiddenstate.data.report import Attribute, ReadReport, Repair
from hiddenstate.data.samples import Samples
from hiddenstate.data.split import Split, by_column, by_time

__all__ = [
    "Attribute",
    "Check",
    "Finding",
    "Leak",
    "Options",
    "ReadReport",
    "Repair",
    "Samples",
    "Split",
    "batches",
    "by_column",
    "by_time",
    "check",
    "leaks",
    "read",
    "read_parts",
]
