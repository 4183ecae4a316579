"""The gradient error of truncation, for a fitted model and data of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiddenstate.artifact import Artifact, ModelSpec
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.events.model import Fitted as Events
from hiddenstate.job.model import Remark, load, part, silent
from hiddenstate.job.text.model import Fitted as Text
from hiddenstate.models import Batch, SequenceModel
from hiddenstate.schema import Schema
from hiddenstate.schema.documents import TextCodes
from hiddenstate.tasks import from_json as task_from_json
from hiddenstate.train import LogFeed
from hiddenstate.train.truncation import Truncation, truncation
from hiddenstate.train.windows import Window, WindowFeed


def measure(
    run: str | Path,
    source: Any,
    lags: Sequence[int],
    *,
    stride: int | None = None,
    steps: int = 256,
    sequences: int = 8,
    remark: Remark = silent,
    observer: Callable[[Truncation], None] = lambda _: None,
) -> dict[str, Any]:
    """Return the report of `train.truncation` for a run folder, in float64, as JSON values.

    steps:     of the longest sequence that is taken from the source
    sequences: how many are taken: stretches of a text, evenly spread; the longest cases of a log
    """
    model = load(run)
    batch = _batch(model, source, steps, sequences, remark)
    time = int(batch.lengths.max())
    if time < 2:
        raise DataError(
            f"The longest sequence of the source has {time} step.",
            "Truncation cuts between steps.",
            "Give longer sequences.",
        )
    kept = [lag for lag in lags if lag <= time]
    if len(kept) < len(lags):
        remark(f"Lags beyond the {time} steps of the longest sequence are the whole gradient.")
    trained = torch_model(model.artifact)
    found = truncation(trained, batch, kept or [time], stride, observer)
    return {
        "fingerprint": model.artifact.fingerprint,
        "sequences": len(batch.lengths),
        "steps": int(batch.lengths.sum()),
        "longest_steps": time,
        "stride": stride,
        "lags": [each.to_json() for each in found],
    }


def torch_model(artifact: Artifact) -> SequenceModel:
    """Return an artifact's model in torch, in float64."""
    spec = artifact.spec
    if not isinstance(spec, ModelSpec):
        raise UsageError(
            f"The artifact holds a {type(spec).__name__}.",
            "Truncation is measured on models that read one sequence.",
            "Name a run of another task.",
        )
    model = SequenceModel(spec)
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in artifact.weights.items()})
    return model.double()


def _batch(model: Any, source: Any, steps: int, sequences: int, remark: Remark) -> Batch:
    if isinstance(model, Text):
        batch = _stretches(model, source, steps, sequences, remark)
    elif isinstance(model, Events):
        log = model.read(source, remark)
        longest = np.argsort(-log.lengths, kind="stable")[:sequences]
        spec = model.runtime.spec
        heads = [task_from_json(head.task) for head in spec.heads]
        feed = LogFeed(log, part(spec.schema, Schema), heads, spec.heads)
        batch = feed.batch(np.sort(longest))
    else:
        raise UsageError(
            f"The run holds a model of {', '.join(model.artifact.spec.task_names)}.",
            "Truncation is measured on language models and on models of event logs.",
            "Name such a run.",
        )
    wide = (each.double() if each.is_floating_point() else each for each in batch.targets)
    return replace(batch, numbers=batch.numbers.double(), targets=tuple(wide))


def _stretches(model: Text, source: Any, steps: int, sequences: int, remark: Remark) -> Batch:
    """Return stretches of the longest documents, evenly spread, each from a state of none."""
    texts = model.read(source, remark)
    text = TextCodes.of(texts.documents, model.symbols, ends=texts.ends)
    feed = WindowFeed(text, steps, steps)
    first = np.cumsum(text.lengths) - text.lengths
    pieces = [
        (start + place, min(steps, length - place))
        for start, length in zip(first.tolist(), text.lengths.tolist())
        for place in range(0, length, steps)
    ]
    whole = [piece for piece in pieces if piece[1] == steps] or pieces
    chosen = np.unique(np.linspace(0, len(whole) - 1, sequences).round().astype(int))
    starts = np.array([whole[place][0] for place in chosen])
    lengths = np.array([whole[place][1] for place in chosen])
    nothing = np.zeros(len(starts), dtype=np.int64)
    return feed.batch(Window(starts, lengths, nothing, np.ones(len(starts), dtype=np.bool_)))
