"""A number for each sequence or step: what is predicted, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import ShapeError
from hiddenstate.tasks.forecasts import Forecast
from hiddenstate.tasks.judged_values import JudgedValues


def judge_numbers(
    case: NDArray[Any],
    length: NDArray[Any],
    target: NDArray[Any],
    told: Forecast,
    levels: Sequence[float] = (),
) -> JudgedValues:
    """Put predictions beside the truth: case, length and target [M], told [M] and [M, Q].

    Metrics, in the truth's own unit: absolute_error, and rmse, the root of the mean squared error;
    with quantiles also quantile_loss (the mean over the levels) and, of several levels, coverage
    (share of truths between the outermost). Raises ShapeError.
    """
    quantiles = told.quantiles
    shapes = [told.point.shape, *([] if quantiles is None else [quantiles.shape])]
    wanted = [(len(target),), (len(target), len(levels))][: len(shapes)]
    if shapes != wanted or len(case) != len(target) or len(length) != len(target):
        raise ShapeError(
            f"Predictions of shape {' and '.join(str(list(each)) for each in shapes)} came for "
            f"{len(target)} numbers.",
            f"The shape {' and '.join(str(list(each)) for each in wanted)} was expected.",
            "Give one row for each number.",
        )
    error = target - told.point
    values = {"absolute_error": np.abs(error), "rmse": error**2}
    if quantiles is not None:
        beyond, given = target[:, None] - quantiles, np.array(levels)
        values["quantile_loss"] = np.maximum(given * beyond, (given - 1) * beyond).mean(axis=1)
        if len(levels) > 1:
            inside = (target >= quantiles[:, 0]) & (target <= quantiles[:, -1])
            values["coverage"] = inside.astype(np.float64)
    return JudgedValues(case.astype(np.int32), length.astype(np.int32), values, ("rmse",))
