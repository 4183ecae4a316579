"""Many fits with one question: which memory is better at equal cost, which settings are best."""

from __future__ import annotations

from hiddenstate.study.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
