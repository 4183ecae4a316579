"""What the loop eats: batches of padded sequences, in an order for every epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.artifact import HeadSpec
from hiddenstate.data import Samples, batches
from hiddenstate.models import AnyBatch, Batch
from hiddenstate.schema import EventLog, Schema
from hiddenstate.tasks import Task
from hiddenstate.train.recipe import Train

Cases = NDArray[np.int64]


class Feed(ABC):
    """Sequences to learn from, encoded only when their batch is asked for.

    An item stands for a batch: by default an array of case numbers.
    """

    # Whether a batch goes on from the state in which the one before it ended.
    stateful = False

    @property
    @abstractmethod
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every case [C]."""

    @property
    def events(self) -> int:
        """Real steps of all cases."""
        return int(self.lengths.sum())

    def order(self, recipe: Train, epoch: int | None) -> Sequence[Any]:
        """Return the items of an epoch; None asks for the order in which to evaluate."""
        return batches(
            self.lengths,
            batch_size=recipe.batch_size,
            batch_events=recipe.batch_events,
            seed=recipe.seed,
            epoch=epoch or 0,
            shuffle=epoch is not None,
        )

    def part(self, item: Any, index: int, count: int) -> Any:
        """Return what process `index` of `count` takes of an item, so that all take all of it."""
        return item[index::count]

    @abstractmethod
    def batch(self, item: Any, state: Any | None = None) -> AnyBatch:
        """Encode and pad an item; `state` is where a stateful feed's batch before it ended."""


@dataclass(frozen=True)
class LogFeed(Feed):
    """A log of event histories seen through a schema and tasks.

    weights: how much each case counts in the loss [C], with mean 1; None means all alike
    """

    log: EventLog
    schema: Schema
    tasks: Sequence[Task]
    heads: Sequence[HeadSpec]
    weights: NDArray[np.float32] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events of every case [C]."""
        return self.log.lengths

    def batch(self, item: Cases, state: Any | None = None) -> Batch:
        """Encode and pad the given cases."""
        part = self.log.select(item)
        inputs = self.schema.encode(part)
        rows, real = padding(part.offsets)
        targets, masks = [], []
        for task, head in zip(self.tasks, self.heads, strict=True):
            truth = task.targets(part)
            if head.scaler is None:
                values = truth.values.astype(np.int64)
            else:
                values = head.scaler.encode(truth.values).astype(np.float32)
            targets.append(torch.from_numpy(values[rows]))
            masks.append(torch.from_numpy(truth.learnable[rows] & real))
        return Batch(
            torch.from_numpy(inputs.codes[rows]),
            torch.from_numpy(inputs.numbers[rows]),
            torch.from_numpy(part.lengths),
            tuple(targets),
            tuple(masks),
            None if self.weights is None else torch.from_numpy(self.weights[item]),
            state,
        )


@dataclass(frozen=True)
class SampleFeed(Feed):
    """Sequences that are encoded already, with their targets."""

    samples: Samples

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every sequence [C]."""
        return self.samples.lengths

    def batch(self, item: Cases, state: Any | None = None) -> Batch:
        """Pad the given sequences."""
        part = self.samples.select(item)
        rows, real = padding(part.offsets)
        targets, masks = [], []
        for (values, mask), of_whole in zip(part.targets, part.of_whole, strict=True):
            if values.dtype.kind == "i":
                values = values.astype(np.int64)
            if not of_whole:
                values = values[rows]
                mask = mask[rows] & real.reshape(*real.shape, *[1] * (mask.ndim - 1))
            targets.append(torch.from_numpy(values))
            masks.append(torch.from_numpy(mask))
        return Batch(
            torch.from_numpy(part.codes[rows].astype(np.int64)),
            torch.from_numpy(part.numbers[rows]),
            torch.from_numpy(part.lengths),
            tuple(targets),
            tuple(masks),
            state=state,
        )


def padding(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the row behind each place of a padded batch, and whether it is a real step, [B, T].

    Sequence b stands in rows offsets[b] to offsets[b + 1]; in the padding any row is named.
    """
    lengths = np.diff(offsets)
    steps = np.arange(int(lengths.max(initial=0)))
    rows = np.minimum(offsets[:-1, None] + steps, max(int(offsets[-1]) - 1, 0))
    return rows, steps < lengths[:, None]


def recency_weights(log: EventLog, half_life: float) -> NDArray[np.float32] | None:
    """Weights [C] that halve for every `half_life` of the cases that began later; None for 0.

    Cases stand in order of their start. The mean over events is 1, so that the learning rate keeps
    its meaning.
    """
    if half_life == 0 or log.cases == 0:
        return None
    age = np.arange(log.cases)[::-1] / log.cases
    weights = 0.5 ** (age / half_life)
    mean = float((weights * log.lengths).sum()) / max(log.events, 1)
    return (weights / mean).astype(np.float32)
