"""Series of binary frames that were read and shared out, to predict the next frame of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.data import Samples
from hiddenstate.data.signals import Bounds, Signal
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.layers import model_spec
from hiddenstate.job.prepared import Json, Prepared, sequence_model
from hiddenstate.job.series.evaluate import evaluate_frames, predicted_rows
from hiddenstate.job.series.prepared import facts, found, identity
from hiddenstate.job.series.task import NEXT_FRAME
from hiddenstate.models import SequenceModel
from hiddenstate.models.heads import OutputHead
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels
from hiddenstate.tasks.frames import FrameFloors, log_odds
from hiddenstate.train import Feed, SampleFeed


@dataclass(frozen=True)
class PreparedFrames(Prepared):
    """What was read and decided before the first training step; series are never cut."""

    schema: Channels
    signal: Signal
    bounds: Bounds
    reading: Mapping[str, Any]

    @cached_property
    def spec(self) -> ModelSpec:
        """The recipe's network over the channels."""
        task = {"task": NEXT_FRAME, "classes": []}
        head = HeadSpec(task, None, "bernoulli", len(self.schema.names))
        return model_spec(self.schema, (head,), self.recipe)

    @cached_property
    def fitted_floors(self) -> FrameFloors:
        """The floors, of training and validation series."""
        seen = np.stack([self.bounds.rows[:, 0], self.bounds.rows[:, 2]], axis=1)
        return FrameFloors.fit(self.signal.values, predicted_rows(seen, self.signal.offsets))

    @property
    def longest_steps(self) -> int:
        """Steps of the longest series."""
        return int(self.signal.lengths.max())

    def build(self) -> SequenceModel:
        """Return the model with biases that say how often each channel is 1 in training.

        Most channels are nearly never: a step of AdamW is at most the learning rate, and the way
        to their log odds is a thousand steps long.
        """
        model = sequence_model(self.spec, self.recipe, self.longest_steps)
        rows = predicted_rows(self.bounds.part(0), self.signal.offsets)
        often = FrameFloors.fit(self.signal.values, rows).alone
        with torch.no_grad():
            cast(OutputHead, model.heads[0]).bias.copy_(torch.from_numpy(log_odds(often)))
        return model

    def feed(self, *parts: int) -> SampleFeed:
        """Return the series of some parts."""
        return SampleFeed(samples(self.signal, self.schema).select(self._series(*parts)))

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return the training series and the validation series."""
        return self.feed(0), self.feed(1) if self.bounds.steps(1) else None

    def finishing(self) -> Feed | None:
        """Return training and validation series together, where there are others to score."""
        return self.feed(0, 1) if self.bounds.steps(2) else None

    def identity(self) -> Json:
        """Return counts and a digest of the signal."""
        return identity(self.signal)

    def parts_of_cases(self) -> list[tuple[str, str]]:
        """Return the part of every series."""
        names = ("train", "validation", "test")
        return [
            (self.signal.ids[series], names[part])
            for part in range(3)
            for series in self._series(part)
        ]

    def floors(self) -> tuple[Json, dict[str, NDArray[Any]]]:
        """Return the floors."""
        arrays = {f"0/{name}": each for name, each in self.fitted_floors.to_arrays().items()}
        return {NEXT_FRAME: self.fitted_floors.to_json()}, arrays

    def facts(self) -> Json:
        """Return sizes, the split, and how to read later files."""
        return {**facts(self.signal, self.bounds), "reading": dict(self.reading)}

    def about(self) -> About:
        """Return what the model card tells."""
        return About(
            answers=f"After every frame of a series this model answers: which of the "
            f"{len(self.signal.channels)} channels are 1 in the next frame, each by its own "
            "probability.",
            layers=layers_in_words(self.spec.layers),
            inputs=f"{len(self.signal.channels)} binary channels",
            found=found(self.signal),
            split=self.bounds.description,
            limits=(
                "Given the past, the channels of one frame are predicted independently of each "
                "other.",
            ),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score the test series; without any, the validation series, or the training series."""
        which = next(part for part in (2, 1, 0) if self.bounds.steps(part))
        scores = evaluate_frames(
            Runtime(artifact),
            self.schema,
            self.fitted_floors,
            self.signal,
            self.bounds.part(which),
            seed=seed,
        )
        return {"part": ("training", "validation", "test")[which], **scores}

    def _series(self, *parts: int) -> NDArray[np.int64]:
        """Return the series of some parts."""
        inside = [np.diff(self.bounds.part(part))[:, 0] > 0 for part in parts]
        return np.flatnonzero(np.any(inside, axis=0))


def samples(signal: Signal, schema: Channels) -> Samples:
    """Return the series with the next frame as the target of every step but the last."""
    numbers = schema.encode(signal.values, signal.times_us, signal.offsets)
    targets = np.zeros(signal.values.shape, dtype=np.float32)
    targets[:-1] = signal.values[1:]
    mask = np.ones(signal.steps, dtype=np.bool_)
    mask[signal.offsets[1:][signal.lengths > 0] - 1] = False
    codes = np.zeros((signal.steps, 0), dtype=np.int32)
    return Samples(codes, numbers, signal.offsets, ((targets, mask),))
