"""What an examination found: in words, as JSON, and as one HTML file."""

from __future__ import annotations

from hiddenstate.diagnose.report.report import Report

__all__ = ["Report"]
