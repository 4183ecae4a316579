"""Pictures of the scores of a fitted run: by length, and how reliable its probabilities are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hiddenstate.charts import Picture
from hiddenstate.diagnose.run import Reliability, Scored, Value


def by_length(held: Scored, own: Scored | None = None) -> Picture:
    """Return the score by length, of the model and its floors, on one part or two."""
    labels = tuple(each.label for each in held.lengths)
    name = f"model, {held.part}" if own else "model"
    series = {name: _values(each.model for each in held.lengths)}
    if own is not None:
        known = {each.label: each.model for each in own.lengths}
        series["model, training"] = _values(known.get(label, Value()) for label in labels)
    for floor in held.compared:
        of_floor = (each.floors.get(floor, Value()) for each in held.lengths)
        series[floor] = _values(of_floor)
    title = f"{held.task}: {held.metric} by {held.by}"
    return Picture("bars", title, held.by, held.metric, series, labels=labels)


def calibration_by_length(scored: Scored) -> Picture:
    """Return the calibration error, or what an interval holds, by length."""
    labels = tuple(each.label for each in scored.lengths)
    found = _values(each.calibration for each in scored.lengths)
    name = "inside the interval" if scored.nominal is not None else "calibration error"
    series = {name: found}
    if scored.nominal is not None:
        series["should be"] = np.full(len(labels), scored.nominal)
    title = f"{scored.task}: {name} by {scored.by}"
    return Picture("bars", title, scored.by, "share", series, labels=labels)


def reliability(found: Reliability) -> Picture:
    """Return how often predictions came true by their confidence, beside the diagonal."""
    said, true = found.bins()
    series = {"came true": true, "as said": said}
    title = "How often predictions come true, by their confidence"
    return Picture("lines", title, "confidence", "share that came true", series, said)


def _values(values: Iterable[Value]) -> NDArray[np.float64]:
    return np.array([each.value for each in values])
