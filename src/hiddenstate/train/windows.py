"""Truncated backpropagation through time: text in windows, the state carried from one to the next.

Source: Williams, Peng 1990 (Neural Computation 2(4)), their BPTT(h; h') with h = k2 and h' = k1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiddenstate.cells.state import map_state
from hiddenstate.data import batches
from hiddenstate.models import Batch
from hiddenstate.schema.documents import TextCodes
from hiddenstate.tasks.language import targets_of
from hiddenstate.tasks.task import UNKNOWN_CLASS
from hiddenstate.train.feed import Feed
from hiddenstate.train.recipe import Train

# A document is cut into pieces no shorter than this many windows, however many streams are asked
# for: each piece begins without a state.
LEAST_WINDOWS = 4


class Window(NamedTuple):
    """What B streams read next.

    starts:  the step with which each stream goes on [B], a place among all N steps
    lengths: how many steps it reads [B]; 0 where a stream has no document left
    counted: how many of them the window before has counted already [B]
    fresh:   whether a document, or a piece of one, begins here [B]
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    counted: NDArray[np.int64]
    fresh: NDArray[np.bool_]


@dataclass(frozen=True)
class WindowBatch(Batch):
    """A batch of windows; its events are the steps that count in it, and not before."""

    @property
    def events(self) -> int:
        """Steps whose losses count."""
        return int(self.masks[0].sum())


@dataclass(frozen=True)
class WindowFeed(Feed):
    """Documents of text in B streams, side by side, each in windows of k2 steps that move on by k1.

    A stream reads document after document. Its state is carried on from window to window, cut from
    the graph, and is none where a document begins. A document longer than a stream's share is cut
    into pieces. Every step's loss counts once: all of a document's first window, then the last k1
    steps of each, so that a loss reaches back k2 - k1 steps at least, where there are so many.

    steps:  k2, steps of a window
    stride: k1, by which windows move on; from 1 to k2
    """

    text: TextCodes
    steps: int
    stride: int

    stateful = True

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every document [C]."""
        return self.text.lengths

    def order(self, recipe: Train, epoch: int | None) -> list[Window]:
        """Return the windows of an epoch; pieces of like length are read side by side.

        Where all pieces are longer than a window and k1 = k2, the first windows of an epoch are
        shorter by chance, so that windows end elsewhere in every epoch.
        """
        starts, lengths = self._pieces(recipe.batch_size)
        groups = batches(
            lengths,
            batch_size=recipe.batch_size,
            batch_events=max(self.events, 1),
            seed=recipe.seed,
            epoch=epoch or 0,
            shuffle=epoch is not None,
        )
        first = self.steps
        if epoch is not None and self.stride == self.steps < int(min(lengths, default=0)):
            first -= int(np.random.default_rng([recipe.seed, epoch]).integers(self.steps))
        pieces = ((int(starts[p]), int(lengths[p])) for group in groups for p in group)
        streams = min(recipe.batch_size, len(lengths))
        return list(self._windows(deque(pieces), streams, first))

    def part(self, item: Window, index: int, count: int) -> Window:
        """Return every count-th stream."""
        mine = slice(index, None, count)
        return Window(item.starts[mine], item.lengths[mine], item.counted[mine], item.fresh[mine])

    def batch(self, item: Window, state: Any | None = None) -> WindowBatch:
        """Return what the streams read, from the state of the window before."""
        places = np.arange(int(item.lengths.max(initial=0)))
        real = places < item.lengths[:, None]
        steps = np.where(real, item.starts[:, None] + places, 0)
        truth = self._targets[steps].astype(np.int64)
        counts = real & (places >= item.counted[:, None]) & (truth != UNKNOWN_CLASS)
        if state is not None:
            goes_on = torch.from_numpy(~item.fresh)
            state = map_state(lambda array: _kept(array, goes_on), state)
        return WindowBatch(
            torch.from_numpy(self._inputs[steps].astype(np.int64)[..., None]),
            torch.zeros(*steps.shape, 0),
            torch.from_numpy(item.lengths),
            (torch.from_numpy(np.maximum(truth, 0)),),
            (torch.from_numpy(counts),),
            state=state,
            carries=True,
            carry_steps=self.stride if self.stride < self.steps else None,
        )

    @cached_property
    def _inputs(self) -> NDArray[np.int32]:
        return self.text.codes[self.text.rows]

    @cached_property
    def _targets(self) -> NDArray[np.int32]:
        return targets_of(self.text)

    def _pieces(self, streams: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first step and length of every piece."""
        share = max(-(-self.events // streams), LEAST_WINDOWS * self.steps, 1)
        lengths = self.text.lengths
        counts = -(-lengths // share)
        first = np.cumsum(lengths) - lengths
        which = np.repeat(np.arange(len(lengths)), counts)
        place = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        begins = lengths[which] * place // np.maximum(counts[which], 1)
        ends = lengths[which] * (place + 1) // np.maximum(counts[which], 1)
        return first[which] + begins, ends - begins

    def _windows(
        self, pieces: deque[tuple[int, int]], streams: int, first: int
    ) -> Iterator[Window]:
        """Yield windows until all pieces are read; a stream that is done takes the next piece."""
        place, end, counted = (np.zeros(streams, dtype=np.int64) for _ in range(3))
        while True:
            fresh = place + counted >= end
            for stream in np.flatnonzero(fresh)[: len(pieces)]:
                start, length = pieces.popleft()
                place[stream], end[stream], counted[stream] = start, start + length, 0
            over = place + counted >= end
            if over.all():
                return
            size = np.where(fresh, first, self.steps)
            lengths = np.where(over, 0, np.minimum(size, end - place))
            yield Window(place.copy(), lengths, np.where(over, 0, counted), fresh)
            move = np.minimum(lengths, self.stride) if self.stride < self.steps else lengths
            # A piece that was read to its end is done, however far the next window would move.
            read = place + lengths
            place, counted = place + move, lengths - move
            done = read >= end
            place[done], counted[done] = end[done], 0


def _kept(array: Tensor, goes_on: Tensor) -> Tensor:
    """Return a state's array [B, ...], zero where nothing goes on."""
    return torch.where(
        goes_on.to(array.device).view(-1, *[1] * (array.ndim - 1)), array, torch.zeros_like(array)
    )
