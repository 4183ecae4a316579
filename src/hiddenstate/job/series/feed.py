"""Windows of a signal to learn forecasts from: every step of one predicts what follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.job.series.base import Base
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.models import Batch
from hiddenstate.train import Feed
from hiddenstate.train.recipe import Train

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class WindowFeed(Feed):
    """Windows of `context` steps, of which each step's targets are the next `horizon` ones.

    base:    what the model's outputs are added to
    span:    first row and end of what may be predicted, in each series [P, 2]
    stride:  steps from one window to the next; they begin elsewhere in every epoch
    warm:    steps before the span that a window begins with: read, and not scored

    No target lies outside the span. A target that is missing is not scored.
    """

    lanes: Lanes
    base: Base
    span: Longs
    horizon: int
    context: int
    stride: int
    warm: int = 0
    _windows: Longs = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay out the windows without an offset."""
        object.__setattr__(self, "_windows", self._laid(0))

    @property
    def lengths(self) -> Longs:
        """Steps of every window."""
        return np.asarray(self._windows[:, 2])

    def order(self, recipe: Train, epoch: int | None) -> Sequence[Longs]:
        """Return batches of windows [B, 3]: lane, first row and length."""
        if epoch is None:
            windows = self._windows
        else:
            rng = np.random.default_rng([recipe.seed, epoch])
            windows = self._laid(int(rng.integers(self.stride)))
            windows = windows[rng.permutation(len(windows))]
        longest = int(windows[:, 2].max())
        size = max(1, min(recipe.batch_size, recipe.batch_events // longest))
        return [windows[first : first + size] for first in range(0, len(windows), size)]

    def batch(self, item: Longs, state: Any | None = None) -> Batch:
        """Cut the windows out; their targets are distances from the base at their step."""
        lanes = self.lanes
        lane, first, length = item.T
        steps = np.arange(int(length.max(initial=0)))
        rows = first[:, None] + np.minimum(steps, length[:, None] - 1)
        real = steps < length[:, None]
        ends = np.searchsorted(lanes.offsets, first, side="right") - 1
        begin, end = self.span[ends].T
        ahead = rows[..., None] + np.arange(1, self.horizon + 1)
        inside = (ahead >= begin[:, None, None]) & (ahead < end[:, None, None]) & real[..., None]
        # A window that does not begin with its series scores no step before it has read `warm`.
        cold = first != lanes.offsets[ends]
        inside &= ((steps >= self.warm - 1) | ~cold[:, None])[..., None]
        seen = np.minimum(ahead, len(lanes.values) - 1)
        if lanes.shared:
            values = lanes.values[seen, lane[:, None, None]][..., None]
            own = np.broadcast_to(lane[:, None], rows.shape)
            base = self.base.at(lanes, rows, self.horizon, own)
        else:
            values, base = lanes.values[seen], self.base.at(lanes, rows, self.horizon)
        # [B, T, H, S] to [B, T, H * S], the channels of one step side by side.
        targets = (values - base).reshape(*rows.shape, -1)
        inside = np.repeat(inside, values.shape[-1], axis=-1)
        return Batch(
            torch.from_numpy(lanes.codes[lane[:, None], rows]),
            torch.from_numpy(lanes.numbers[lane[:, None], rows]),
            torch.from_numpy(length),
            (torch.from_numpy(targets.astype(np.float32)),),
            (torch.from_numpy(inside & np.isfinite(targets)),),
            state=state,
        )

    def _laid(self, shift: int) -> Longs:
        """Return windows [W, 3] that begin `shift` steps late and cover the span."""
        windows = []
        for series, (begin, end) in enumerate(self.span):
            first = max(int(begin) - self.warm, int(self.lanes.offsets[series]))
            last = int(end) - 1
            # The last window ends at the last step that has a target.
            starts = np.arange(first + shift, last - self.context, self.stride)
            starts = np.append(starts, max(last - self.context, first))
            for lane in range(self.lanes.count if last > first else 0):
                length = np.minimum(self.context, last - starts)
                windows.append(np.stack([np.full(len(starts), lane), starts, length], axis=1))
        return np.concatenate(windows) if windows else np.zeros((0, 3), dtype=np.int64)
