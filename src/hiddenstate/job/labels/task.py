"""What can be asked of labelled sequences, and what a number's head says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import HeadSpec
from hiddenstate.schema import Scaler
from hiddenstate.tasks.forecasts import Forecast

# A name out of several, or a number; for a whole sequence, or for every step.
NUMERIC = ("regress", "regress_steps")
EVERY_STEP = ("label", "regress_steps")


def levels_of(head: HeadSpec) -> tuple[float, ...]:
    """Return the levels of the quantiles that a head gives, () where it says a number alone."""
    return tuple(float(level) for level in head.task["levels"])


def in_own_units(head: HeadSpec, said: NDArray[np.float64]) -> Forecast:
    """Return points [M] and quantiles [M, Q] in the numbers' own unit from what was decoded."""
    if head.output == "number":
        return Forecast(said)
    scaler, levels = head.scaler or Scaler(), levels_of(head)
    if head.output == "gaussian":
        mean, scale = said[:, 0, 0], said[:, 1, 0]
        return Forecast.normal(scaler.decode(mean), scale * scaler.scale, levels)
    quantiles = scaler.decode(said[:, 0])
    return Forecast(quantiles[:, int(np.argmin(np.abs(np.array(levels) - 0.5)))], quantiles)
