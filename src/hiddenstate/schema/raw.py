"""Raw values as text and as numbers: the one meaning that files, frames and live events share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hiddenstate.errors import DataError

# Words that stand for no value, compared as they are written.
MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
# A case or an activity may be called NA (one case of a public log is): only blank is missing.
BLANK = ("",)
# Files write whole numbers as 1 or 1.0, and pandas turns one into the other where there are gaps.
WHOLE = r"^([+-]?[0-9]+)\.0*$"
_WHOLE = re.compile(WHOLE, re.ASCII)


def label(value: object, missing: Sequence[str] = MISSING_WORDS) -> str | None:
    """Return the text of a raw value, None where it is missing: NaN, or one of the words given.

    Whole numbers have no fraction, numeric or text (2.0 is '2'); True is 'true'.
    """
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    text = str(value).strip()
    if text in missing:
        return None
    text = _WHOLE.sub(r"\1", text)
    return "0" if text == "-0" else text


def number(name: str, value: Any) -> float:
    """Return a raw numeric value as float, NaN where missing; raises DataError for other text."""
    if isinstance(value, float):
        return float(value)
    text = label(value)
    if text is None:
        return math.nan
    try:
        # Python reads 1_000 as a number; files do not.
        return float(text.replace("_", "?"))
    except ValueError:
        raise DataError(
            f"The event's {name!r} is {value!r}.",
            "The model was trained with numbers in that column.",
            "Give a number, or leave it out where it is not known.",
        ) from None
