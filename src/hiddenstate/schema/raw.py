"""Raw values of one live event, understood as the reader understands a file."""

from __future__ import annotations

import math
from typing import Any

from hiddenstate.errors import DataError


def label(value: object) -> str | None:
    """Return the text of a raw categorical value as the reader would; None where it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value).strip()
    return text or None


def number(name: str, value: Any) -> float:
    """Return a raw numeric value as float, NaN where missing; raises DataError for other text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise DataError(
            f"The event's {name!r} is {value!r}.",
            "The model was trained with numbers in that column.",
            "Give a number, or leave it out where it is not known.",
        ) from None
