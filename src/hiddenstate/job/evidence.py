"""What a fitted run brings to its diagnosis, whatever its family: a batch, scores, its own data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiddenstate.artifact import ModelSpec, TransformerSpec
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Bucket, Difference, Run, Scored, Value
from hiddenstate.job.card import FLOORS, NAMES
from hiddenstate.job.model import Remark
from hiddenstate.job.prepared import Prepared
from hiddenstate.models import SequenceModel
from hiddenstate.tasks.compare import HIGHER_IS_BETTER
from hiddenstate.tasks.scores import Bucket as Range

Json = Mapping[str, Any]
Longs = NDArray[np.int64]

# Sequences longer than this are not taken into the batch, where there are others.
MOST_STEPS = 256
# Draws of a bootstrap that are enough to tell two intervals apart.
DRAWS = 200
# What a task is judged by, the first of these that its verdicts speak of.
JUDGED_BY = (
    *("log_loss", "nats", "nats_per_frame", "nll", "pinball", "quantile_loss"),
    *("mae_days", "mse", "squared_error", "absolute_error", "chrf", "accuracy"),
)


@dataclass(frozen=True)
class Looked:
    """What `diagnose.examine` is given.

    arguments: of the module's forward, by name
    loss:      of what it gives on them
    causal:    whether no output may depend on later steps; None: no step has an output of its own
    """

    module: nn.Module
    arguments: Mapping[str, Any]
    loss: Callable[[Any], Tensor] | None
    causal: bool | None


class Evidence(Run):
    """What rules ask of a run, from its folder and the data.

    model:  the fitted model, as `job.model.load` gives it
    source: what is looked at; None: what the fit held back of its own data
    ready:  the fit's own data, read again; None where they are not there
    """

    def __init__(
        self,
        model: Any,
        source: Any | None,
        ready: Prepared | None,
        *,
        rows: int,
        seed: int,
        observer: Remark,
    ) -> None:
        """Note what there is; data are read and scored when they are asked for."""
        self.model, self.source, self.ready = model, source, ready
        self.rows, self.seed, self.observer = rows, seed, observer

    # --- what every family tells

    @property
    @abstractmethod
    def batch(self) -> Any:
        """Sequences of mixed lengths, with their answers, as the model is trained on them."""

    @abstractmethod
    def taught(self) -> Json:
        """Return the scores on the training part, or on some of it."""

    def names(self, row: int) -> tuple[str, ...]:
        """Return what stands at each step of a row of the batch; () where that has no name."""
        del row
        return ()

    @property
    def finished(self) -> bool:
        """Whether the last epochs of the training had the validation part as well."""
        return self.ready is not None and self.ready.recipe.train.finish_epochs > 0

    @property
    def row(self) -> int:
        """The longest row of the batch, which is shown step by step."""
        return int(self.batch.lengths.argmax())

    # --- what follows from it

    @property
    def part(self) -> str:
        """What is looked at: given data, or the part of the fit's data that was held back."""
        return "given" if self.source is not None else str(self.model.metrics["scores"]["part"])

    @cached_property
    def looked(self) -> Looked:
        """The model in torch and its arguments, with the loss that it was trained by."""
        spec, batch = self.model.artifact.spec, self.batch
        attends = any(isinstance(layer, TransformerSpec) for layer in spec.layers)
        module = _WithoutCache(spec) if attends else SequenceModel(spec)
        module.load_state_dict(tensors(self.model.artifact.weights))
        steps = torch.stack([mask.sum() for mask in batch.masks]).clamp(min=1)

        def loss(given: Any) -> Tensor:
            outputs, _ = given
            each = zip(module.heads, outputs, batch.targets, batch.masks, strict=True)
            sums = [head.loss(o, target, mask) for head, o, target, mask in each]  # type: ignore[operator]
            return (torch.stack(sums) / steps).sum()

        arguments = {"codes": batch.codes, "numbers": batch.numbers, "lengths": batch.lengths}
        learnable = any(bool(mask.any()) for mask in batch.masks)
        pooled = all(head.pool is not None for head in spec.heads)
        causal = all(layer.causal for layer in spec.layers)
        return Looked(
            module.eval(), arguments, loss if learnable else None, None if pooled else causal
        )

    @cached_property
    def evaluated(self) -> Json:
        """The scores on what is looked at, as `job.scores` has them."""
        if self.source is None:
            known: Json = self.model.metrics["scores"]
            return known
        return self.given()

    def given(self) -> Json:
        """Return the scores on the source that was given."""
        found: Json = self.model.evaluate(self.source, seed=self.seed)
        return found

    def scores(self) -> tuple[Scored, ...]:
        """Return the scores of every task on what is looked at."""
        return of_scores(self.evaluated, self.part, self._nominal)

    def training_scores(self) -> tuple[Scored, ...]:
        """Return the scores of every task on the training part."""
        if self.ready is None:
            raise Skip("the training part is not there")
        return of_scores(self._taught, "training", self._nominal)

    def difference(self) -> Difference:
        """Return how far the runtime's outputs are from torch's on the batch."""
        looked, batch = self.looked, self.batch
        with torch.no_grad():
            said, _ = looked.module(**looked.arguments)
        lengths = batch.lengths.numpy()
        run = self.model.runtime.run_whole(batch.codes.numpy(), batch.numbers.numpy(), lengths)
        largest, scale = 0.0, 0.0
        for head, one, other in zip(self.model.artifact.spec.heads, said, run, strict=True):
            pair: NDArray[Any] = np.stack([one.numpy(), other])
            if head.pool is None:
                pair = pair[:, np.arange(pair.shape[2]) < lengths[:, None]]
            if pair.size:
                largest = max(largest, float(np.abs(pair[0] - pair[1]).max()))
                scale = max(scale, float(np.abs(pair).max()))
        return Difference(largest, scale)

    @cached_property
    def _taught(self) -> Json:
        return self.taught()

    @property
    def _nominal(self) -> float | None:
        """The share that the outermost quantiles should hold; None without two of them."""
        spec = self.model.artifact.spec
        task: Json = spec.heads[0].task if isinstance(spec, ModelSpec) else {}
        levels = task.get("levels", ())
        return float(levels[-1] - levels[0]) if len(levels) > 1 else None


class _WithoutCache(SequenceModel):
    """A transformer that takes no state: what it caches is no memory of a fixed size."""

    def forward(  # type: ignore[override]
        self, codes: Tensor, numbers: Tensor, lengths: Tensor
    ) -> tuple[tuple[Tensor, ...], None]:
        """Run whole sequences; see `SequenceModel.forward`."""
        return super().forward(codes, numbers, lengths, None, False)


def of_scores(scores: Json, part: str, nominal: float | None = None) -> tuple[Scored, ...]:
    """Return the scores of each task from what `job.scores.result` made."""
    return tuple(
        _scored(name, task, scores, part, nominal) for name, task in scores["tasks"].items()
    )


def _scored(name: str, task: Json, scores: Json, part: str, nominal: float | None) -> Scored:
    model, floors, verdicts = task["model"], task["floors"], task["verdicts"]
    compared = [metric for by_metric in verdicts.values() for metric in by_metric]
    metric = next((each for each in JUDGED_BY if each in compared), compared[0])

    def worse(of: Callable[[str], bool]) -> tuple[str, ...]:
        return tuple(
            verdict["sentence"]
            for by_metric in verdicts.values()
            for which, verdict in by_metric.items()
            if verdict["verdict"] == "worse" and of(which)
        )

    surely = max(
        (
            min(abs(each["low"]), abs(each["high"]))
            for by_metric in verdicts.values()
            for which, each in by_metric.items()
            if which == metric and each["verdict"] == "worse"
        ),
        default=0.0,
    )

    def calibration(metrics: Json) -> Value:
        return Value.of(metrics.get("ece" if nominal is None else "coverage"))

    by_floor = {
        FLOORS.get(floor, floor): {
            (each["from"], each["to"]): each["metrics"] for each in found["by_length"]
        }
        for floor, found in floors.items()
    }
    buckets = []
    for each in model["by_length"]:
        place = each["from"], each["to"]
        there = {floor: found[place] for floor, found in by_floor.items() if place in found}
        buckets.append(
            Bucket(
                Range(*place, each["events"], {}).label,
                *place,
                each["events"],
                Value.of(each["metrics"].get(metric)),
                {floor: Value.of(found.get(metric)) for floor, found in there.items()},
                calibration(each["metrics"]),
            )
        )
    return Scored(
        task=name,
        part=part,
        metric=NAMES.get(metric, metric),
        higher=metric in HIGHER_IS_BETTER,
        by=str(task.get("by", f"{scores['units'][1]} so far")),
        cases=int(model["cases"]),
        events=int(model["events"]),
        model=Value.of(model["metrics"].get(metric)),
        floors={
            FLOORS.get(floor, floor): Value.of(found["metrics"].get(metric))
            for floor, found in floors.items()
        },
        compared=tuple(FLOORS.get(floor, floor) for floor in verdicts),
        worse=worse(lambda which: which == metric),
        also_worse=worse(lambda which: which != metric),
        surely=surely,
        lengths=tuple(buckets),
        calibration=calibration(model["metrics"]),
        nominal=nominal,
    )


def spread(lengths: Longs, rows: int, most: int = MOST_STEPS) -> Longs:
    """Return the places of so many sequences of all lengths from the shortest to the longest.

    Without those of no step, and of more than `most`, where there are others.
    """
    fitting = np.flatnonzero((lengths > 0) & (lengths <= most))
    if not len(fitting):
        fitting = np.flatnonzero(lengths > 0)[np.argsort(lengths[lengths > 0])[:rows]]
    ordered = fitting[np.argsort(lengths[fitting], kind="stable")]
    places = np.linspace(0, len(ordered) - 1, min(rows, len(ordered))).round().astype(np.int64)
    return ordered[places]


def few(rng: np.random.Generator, count: int, most: int) -> Longs:
    """Return at most so many of `count` places, in order."""
    return np.sort(rng.permutation(count)[:most])


def tensors(weights: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Return an artifact's weights as a state_dict."""
    return {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
