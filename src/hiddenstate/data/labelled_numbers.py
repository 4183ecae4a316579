"""Labels that are numbers: one for each sequence, or one for each step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hiddenstate.data.labelled import Labelled
from hiddenstate.data.report import Faults
from hiddenstate.errors import DataError
from hiddenstate.schema.log import Categorical, Floats
from hiddenstate.schema.raw import MISSING_WORDS

MISSING = frozenset((*(word.lower() for word in MISSING_WORDS), "?"))
SHOWN = 3


def require_numbers(found: Labelled, faults: Faults) -> Labelled:
    """Return the sequences without labels that only say that a number is missing (NaN, NA, ?).

    Raises DataError for labels that are no finite numbers: none is guessed, and none left out.
    """
    gone = np.array([label.lower() in MISSING for label in found.labels.labels], dtype=np.bool_)
    wrong = [
        place
        for place, label in enumerate(found.labels.labels)
        if not gone[place] and not math.isfinite(_number(label))
    ]
    codes = found.labels.codes
    rows = np.repeat(found.rows, found.lengths) if found.every_step else found.rows
    if wrong:
        at = np.flatnonzero(np.isin(codes, wrong))
        shown = [
            f"{found.labels.labels[codes[place]]!r:.40} (sequence of "
            f"{faults.place(int(rows[place]))})"
            for place in at[:SHOWN]
        ]
        raise DataError(
            f"{len(at)} of {len(codes)} labels are no finite numbers: {', '.join(shown)}"
            + (", ..." if len(at) > SHOWN else "."),
            "A number such as 3 or -0.5 was expected; where none is known, nothing, NaN, NA or ?.",
            "Mend them, name the column of the numbers with --set labels.label=NAME, or use --task "
            + ("label" if found.every_step else "classify")
            + " for labels that are names.",
        )
    lost = (codes >= 0) & np.append(gone, False)[codes]
    faults.note("no_label", rows[lost])
    labels = Categorical(np.where(lost, -1, codes).astype(np.int32), found.labels.labels)
    return replace(found, labels=labels)


def numbers(found: Labelled) -> Floats:
    """Return the number of each sequence [C] or step [N], NaN where none is known."""
    table = [_number(label) for label in found.labels.labels]
    return np.array([*table, math.nan], dtype=np.float64)[found.labels.codes]


def _number(label: str) -> float:
    try:
        # Python reads 1_000 as a number; nobody writes one so in a file.
        return math.nan if "_" in label else float(label)
    except ValueError:
        return math.nan
