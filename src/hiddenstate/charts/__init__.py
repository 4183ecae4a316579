"""Figures as HTML: drawn here, seen in any browser, with no other file and no network."""

from __future__ import annotations

from hiddenstate.charts.document import document
from hiddenstate.charts.figure import figure
from hiddenstate.charts.picture import Picture

__all__ = ["Picture", "document", "figure"]
