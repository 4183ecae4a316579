"""Whether a model uses the order of the past: what it loses where that is shuffled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hiddenstate.job.prepared import Prepared
from hiddenstate.models import Batch
from hiddenstate.models.translator import PairBatch

SEQUENCES = 200
# A past of one step has no order.
LEAST_PAST = 2


def order_control(prepared: Prepared, weights: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Return the loss at the last answer of sequences, their past in order and shuffled.

    The loss is the one that is trained, of the first task, over some SEQUENCES sequences (windows
    of text and of signals) of the validation part, of the training part where there is none. Steps
    are shuffled as the model reads them, times and all; the last one stays in place. Of pairs the
    whole source is shuffled. Both are NaN where no past has an order.
    """
    model = prepared.build()
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    model.eval()
    training, judged = prepared.feeds()
    feed = judged or training
    generator = torch.Generator().manual_seed(1)
    sums, answers, sequences = [0.0, 0.0], 0, 0
    with torch.no_grad():
        for item in feed.order(prepared.recipe.train, None):
            batch: Any = feed.batch(item)
            if isinstance(batch, PairBatch):
                mixed: Any = with_shuffled_source(batch, generator)
                sequences += len(batch.source)
            else:
                batch, mixed = with_shuffled_past(
                    batch, generator, whole=prepared.spec.heads[0].pool is not None
                )
                sequences += len(batch.codes)
            for which, each in enumerate((batch, mixed)):
                losses = model.losses(each)
                sums[which] += float(losses.sums[0])
            answers += int(losses.steps[0])
            if sequences >= SEQUENCES:
                break
    if not answers:
        return float("nan"), float("nan")
    return sums[0] / answers, sums[1] / answers


def with_shuffled_past(
    batch: Batch, generator: torch.Generator, *, whole: bool
) -> tuple[Batch, Batch]:
    """Return a batch that asks for the last answer of each sequence, in order and shuffled.

    whole: the answer is about the whole sequence: all steps but the last are shuffled
    """
    mask, places = batch.masks[0], torch.arange(batch.codes.shape[1])
    if whole:
        last = batch.lengths - 1
        asked = last >= LEAST_PAST
    else:
        answered = mask.flatten(2).any(-1) if mask.ndim > 2 else mask
        last = torch.where(answered, places, -1).amax(1)
        asked = (places == last[:, None]) & (last >= LEAST_PAST)[:, None]
    asked = mask & asked.view(*asked.shape, *[1] * (mask.ndim - asked.ndim))
    once = replace(batch, masks=(asked, *batch.masks[1:]))
    order = _shuffled(last, batch.codes.shape[1], generator)[..., None]
    codes, numbers = (torch.take_along_dim(x, order, 1) for x in (batch.codes, batch.numbers))
    return once, replace(once, codes=codes, numbers=numbers)


def with_shuffled_source(batch: PairBatch, generator: torch.Generator) -> PairBatch:
    """Return the same targets behind sources whose symbols stand in random order."""
    order = _shuffled(batch.source_lengths, batch.source.shape[1], generator)
    return replace(batch, source=torch.take_along_dim(batch.source, order, 1))


def _shuffled(ends: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return for each row an order [B, T] of its steps, random before its end and kept from it."""
    places = torch.arange(steps)
    keys = torch.rand(len(ends), steps, generator=generator)
    return torch.where(places < ends[:, None], keys, 1.0 + places).argsort(1)
