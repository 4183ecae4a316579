"""A signal as a forecaster sees it: sequences of inputs, and the scaled truth beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.signals import Signal
from hiddenstate.schema import Channels
from hiddenstate.schema.channels import level

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lanes:
    """J sequences of inputs over the same N steps: one, or one for each of S shared channels.

    codes, numbers: inputs int64 [J, N, K] and float32 [J, N, F]
    values:         scaled truth of the S channels that are forecast [N, S]; NaN where missing
    filled:         the same without gaps [N, S]
    levels:         what forecasts are measured from [N, S]
    offsets:        where each series begins and the last one ends [P + 1]
    times_us:       time of each step [N], step_us apart; None without times

    Lane j forecasts the channels `columns(j)`.
    """

    codes: NDArray[np.int64]
    numbers: NDArray[np.float32]
    values: Floats
    filled: Floats
    levels: Floats
    offsets: NDArray[np.int64]
    times_us: NDArray[np.int64] | None = None
    step_us: int | None = None

    @classmethod
    def of(cls, signal: Signal, schema: Channels, places: tuple[int, ...]) -> Lanes:
        """Encode a signal with the channels of a schema; `places` are those that are forecast."""
        known = signal.with_channels(schema.names)
        numbers = schema.encode(known.values, known.times_us, known.offsets)
        filled = schema.fill(known.values, known.offsets)
        if schema.around:
            levels = level(filled, known.offsets, schema.around)
        else:
            levels = np.zeros_like(filled)
        chosen = list(places)
        if schema.shared:
            numbers = numbers[chosen]
            codes = np.broadcast_to(
                np.array(chosen, dtype=np.int64)[:, None, None], (len(chosen), known.steps, 1)
            )
        else:
            numbers = numbers[None]
            codes = np.zeros((1, known.steps, 0), dtype=np.int64)
        return cls(
            codes,
            numbers,
            schema.scale(known.values)[:, chosen],
            filled[:, chosen],
            levels[:, chosen],
            known.offsets,
            known.times_us,
            known.step_us,
        )

    @property
    def count(self) -> int:
        """Number of lanes J."""
        return len(self.codes)

    def times_after(self, rows: NDArray[np.int64], steps: int) -> NDArray[np.int64] | None:
        """Return the time so many steps after each row [n]; None without times."""
        if self.times_us is None or self.step_us is None:
            return None
        return np.asarray(self.times_us[rows] + steps * self.step_us)

    @property
    def shared(self) -> bool:
        """Whether each lane forecasts a channel of its own."""
        return bool(self.codes.shape[-1])

    def columns(self, lane: int) -> slice:
        """Return the columns of `values` that a lane forecasts."""
        return slice(lane, lane + 1) if self.shared else slice(None)

    def merged(self, by_lane: NDArray[Any]) -> NDArray[Any]:
        """Return [n, H, S, ...] from what each lane forecasts [J, n, H, S / J, ...]."""
        return np.moveaxis(by_lane[:, :, :, 0], 0, 2) if self.shared else by_lane[0]
