"""An axis: where on it a value lies, and which values are written beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]

TICKS = 5
# A line that falls further than this is cut off: what is left there is rounding.
MOST_DECADES = 16
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """Values from low to high, on a linear or a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: ArrayLike, *, log: bool = False, margin: float = 0.0) -> Axis:
        """Return the axis that holds all finite values; of positive ones only where log.

        margin: share of the range left free at both ends
        """
        flat = np.asarray(values, float).ravel()
        flat = flat[np.isfinite(flat) & ((flat > 0) | (not log))]
        if not flat.size:
            return cls(0.1, 1.0, log) if log else cls(0.0, 1.0)
        low, high = float(flat.min()), float(flat.max())
        if log:
            low = max(low, high * 10.0**-MOST_DECADES)
            low, high = (low / 1.5, high * 1.5) if low == high else (low, high)
            more = (high / low) ** margin
            return cls(low / more, high * more, log)
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        more = (high - low) * margin
        return cls(low - more, high + more)

    def place(self, values: ArrayLike) -> Floats:
        """Return places between 0 (low) and 1 (high); NaN for what cannot be drawn."""
        given = np.asarray(values, float)
        if self.log:
            given = np.log(np.where(given > 0, given, np.nan))
            low, high = math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        places = np.where(np.isfinite(given), (given - low) / (high - low), np.nan)
        # What lies far outside is cut off by the frame, but has to stay a number that it can hold.
        return np.clip(places, -9.0, 10.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Return some round values within the axis, each with its text.

        >>> [text for _, text in Axis(0, 93).ticks()]
        ['0', '20', '40', '60', '80']
        >>> [text for _, text in Axis(2e-6, 30, log=True).ticks()]
        ['10⁻⁵', '0.001', '0.1', '10']
        """
        return self._log_ticks() if self.log else self._linear_ticks()

    def _linear_ticks(self) -> list[tuple[float, str]]:
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(nice for nice in (1, 2, 5, 10) if nice * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(step * k, _plain(step * k, decimals)) for k in range(first, last + 1)]

    def _log_ticks(self) -> list[tuple[float, str]]:
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        if last - first < 1:
            fine = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
            inside = [each for each in fine if self.low <= each <= self.high]
            if len(inside) < 2:
                return self._linear_ticks()
            return [(each, f"{each:g}") for each in inside]
        stride = math.ceil((last - first + 1) / TICKS)
        return [(10.0**e, _power(e)) for e in range(first, last + 1) if (last - e) % stride == 0]


def _plain(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}" if abs(value) < 1e5 and decimals < 5 else f"{value:.3g}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def _power(exponent: int) -> str:
    if -3 <= exponent <= 4:
        return f"{10.0**exponent:g}"
    return f"10{str(exponent).translate(_RAISED)}"
