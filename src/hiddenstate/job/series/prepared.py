"""A signal that was read and cut in time, with what shall be forecast of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.data.signals import Bounds, Signal
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.layers import model_spec
from hiddenstate.job.prepared import Json, Prepared, sequence_model
from hiddenstate.job.series.evaluate import evaluate_forecasts
from hiddenstate.job.series.feed import WindowFeed
from hiddenstate.job.series.forecaster import reads_windows
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.task import FORECAST, ForecastTask
from hiddenstate.models import SequenceModel
from hiddenstate.models.heads import OutputHead
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels
from hiddenstate.schema.channels import LEAST_SCALE
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.forecasts import Origins
from hiddenstate.train import Feed

# Origins whose errors a model starts with, at most twice as many.
ERRORS = 1000


@dataclass(frozen=True)
class PreparedSeries(Prepared):
    """What was read and decided before the first training step."""

    schema: Channels
    head: HeadSpec
    signal: Signal
    bounds: Bounds
    task: ForecastTask
    lanes: Lanes
    fitted_floors: ForecastFloors
    reading: Mapping[str, Any]

    @cached_property
    def spec(self) -> ModelSpec:
        """The recipe's network over the channels."""
        return model_spec(self.schema, (self.head,), self.recipe)

    @property
    def longest_steps(self) -> int:
        """Steps of a training window."""
        return self.task.context

    @property
    def longest_length(self) -> int:
        """Steps ahead."""
        return self.task.horizon

    def steps_at(self, length: int) -> int:  # noqa: ARG002
        """Return what is read before a forecast, however far it goes."""
        return self.task.context

    def build(self) -> SequenceModel:
        """Return a model that begins with its base, and with the base's errors as its spread."""
        model = sequence_model(self.spec, self.recipe, self.longest_steps)
        head = cast(OutputHead, model.heads[0])
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.from_numpy(self._first_outputs()))
        return model

    def feed(self, span: NDArray[np.int64], *, warm: bool = False) -> WindowFeed:
        """Return windows of rows span [P, 2]; warm ones read `context` steps before they score."""
        context = self.task.context
        steps = 1 if self.task.recursive else self.task.horizon
        base = self.task.base_of(self.fitted_floors)
        if warm:
            return WindowFeed(self.lanes, base, span, steps, 2 * context, context, warm=context)
        stride = max(1, context // self.recipe.series.overlap)
        # A transformer has to know the places that it will be asked about.
        length = 2 * context if reads_windows(self.spec) else context
        return WindowFeed(self.lanes, base, span, steps, length, stride)

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return windows of the training part, and of the validation part."""
        judged = self.feed(self.bounds.part(1), warm=True)
        training = self.feed(self.bounds.part(0))
        return training, judged if self.bounds.steps(1) else None

    def finishing(self) -> Feed | None:
        """Return windows of training and validation part together, where there is another."""
        if not self.bounds.steps(2):
            return None
        rows = self.bounds.rows
        return self.feed(np.stack([rows[:, 0], rows[:, 2]], axis=1))

    def identity(self) -> Json:
        """Return counts and a digest of the signal."""
        return identity(self.signal)

    def floors(self) -> tuple[Json, dict[str, NDArray[Any]]]:
        """Return the floors."""
        arrays = {f"0/{name}": each for name, each in self.fitted_floors.to_arrays().items()}
        return {FORECAST: self.fitted_floors.to_json()}, arrays

    def facts(self) -> Json:
        """Return sizes, the split, and how to read later files."""
        return {**facts(self.signal, self.bounds), "reading": dict(self.reading)}

    def about(self) -> About:
        """Return what the model card tells."""
        task = self.task
        how = {"quantiles": "quantiles", "gaussian": "a normal distribution", "point": "the mean"}
        return About(
            answers=f"After every step of a series this model answers: {how[task.output]} of "
            f"{', '.join(task.targets)} in the next {task.horizon} steps"
            + (", step by step from its own predictions." if task.recursive else ".")
            + " Every channel is read by itself with the same weights." * self.schema.shared,
            layers=layers_in_words(self.spec.layers),
            inputs=", ".join(self.schema.number_names),
            found=found(self.signal),
            split=self.bounds.description,
            limits=(
                "Errors are in scaled units: the training part of each channel has mean 0 and "
                "deviation 1.",
                "The bootstrap draws stretches as long as the longest period or the horizon; "
                "few of them give no verdict.",
            ),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score the test part; without one, the validation part, or the training part."""
        which = next(part for part in (2, 1, 0) if self.bounds.steps(part))
        scores = evaluate_forecasts(
            Runtime(artifact),
            self.schema,
            self.task,
            self.fitted_floors,
            self.lanes,
            self.bounds.part(which),
            seed=seed,
        )
        return {"part": ("training", "validation", "test")[which], **scores}

    def _first_outputs(self) -> NDArray[np.float64]:
        """Return the outputs [V] that say best what the base gets wrong in the training part."""
        task, lanes, head = self.task, self.lanes, self.head
        steps = 1 if task.recursive else task.horizon
        part = self.bounds.part(0)
        origins = Origins.of(part, lanes.offsets, horizon=steps, history=task.history)
        few = origins.every(max(1, len(origins.rows) // ERRORS))
        base = task.base_of(self.fitted_floors).at(lanes, few.rows, steps)
        errors = few.truth(lanes.values) - base
        if lanes.shared:
            errors = np.moveaxis(errors, -1, 1)
        errors = errors.reshape(-1, head.size)
        # An output without any truth here starts at 0.
        errors[:, ~np.isfinite(errors).any(axis=0)] = 0.0
        if task.output == "quantiles":
            return np.asarray(np.nanquantile(errors, task.levels, axis=0).T.ravel())
        mean = np.asarray(np.nanmean(errors, axis=0))
        if task.output == "point":
            return mean
        return np.concatenate((mean, np.log(np.nanstd(errors, axis=0) + LEAST_SCALE)))


def identity(signal: Signal) -> Json:
    """Return counts and a digest of a signal."""
    total = hashlib.sha256("\n".join((*signal.ids, *signal.channels)).encode())
    for array in (signal.offsets, signal.values, signal.times_us):
        if array is not None:
            total.update(np.ascontiguousarray(array).data)
    return {"series": len(signal.ids), "steps": signal.steps, "digest": total.hexdigest()}


def found(signal: Signal) -> str:
    """Return what was read, in words."""
    return f"{len(signal.ids):,} series of {len(signal.channels)} channels, {signal.steps:,} steps"


def facts(signal: Signal, bounds: Bounds) -> Json:
    """Return the sizes and the split of a signal."""
    return {
        "series": len(signal.ids),
        "steps": signal.steps,
        "split": {
            "description": bounds.description,
            "steps": [bounds.steps(part) for part in range(3)],
        },
    }
