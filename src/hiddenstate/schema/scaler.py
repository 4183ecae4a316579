"""Numbers brought to mean 0 and deviation 1 of the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.fields import Fields
from hiddenstate.schema.log import Floats


def signed_log1p(values: Floats) -> Floats:
    """Return sign(v) log(1 + |v|): a logarithm that is defined for every finite number."""
    return np.asarray(np.copysign(np.log1p(np.abs(values)), values))


def signed_expm1(values: Floats) -> Floats:
    """Return the inverse of signed_log1p."""
    return np.asarray(np.copysign(np.expm1(np.abs(values)), values))


@dataclass(frozen=True)
class Scaler:
    """(v - mean) / scale, of v itself or of its signed logarithm; NaN stays NaN.

    >>> Scaler.fit(np.array([1.0, 3.0, np.nan])).encode(np.array([2.0, 3.0])).tolist()
    [0.0, 1.0]
    """

    mean: float = 0.0
    scale: float = 1.0
    log1p: bool = False

    def encode(self, values: NDArray[Any]) -> Floats:
        """Return scaled values of the same shape, float64."""
        values = np.asarray(values, dtype=np.float64)
        return ((signed_log1p(values) if self.log1p else values) - self.mean) / self.scale

    def decode(self, scaled: NDArray[Any]) -> Floats:
        """Return what `encode` would have been given."""
        values = np.asarray(scaled, dtype=np.float64) * self.scale + self.mean
        return signed_expm1(values) if self.log1p else values

    @classmethod
    def fit(cls, values: NDArray[Any], log1p: bool | None = None) -> Scaler:
        """Measure mean and deviation of the finite values; a constant column has scale 1.

        log1p=None takes the logarithm where values are never negative and their deviation exceeds
        their mean: durations, amounts, laboratory values.
        """
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            return cls(log1p=bool(log1p))
        if log1p is None:
            log1p = bool(finite.min() >= 0 and finite.std() > finite.mean())
        if log1p:
            finite = signed_log1p(finite)
        mean, scale = float(finite.mean()), float(finite.std())
        steady = not np.isfinite(scale) or scale <= 1e-12 * max(1.0, abs(mean))
        return cls(mean if np.isfinite(mean) else 0.0, 1.0 if steady else scale, log1p)

    def to_json(self) -> dict[str, object]:
        """Return the three numbers as a JSON object."""
        return {"mean": self.mean, "scale": self.scale, "log1p": self.log1p}

    @classmethod
    def from_json(cls, raw: object, where: str = "scaler") -> Scaler:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        fields = Fields(raw, where)
        return cls(
            fields.number("mean"), fields.number("scale", positive=True), fields.flag("log1p")
        )
