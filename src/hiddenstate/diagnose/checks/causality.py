"""Causality: what comes later may not change an earlier output. HS111."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import Difference, differences, steady
from hiddenstate.nn import Transformer

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS111",
    "future-read",
    Severity.ERROR,
    asks="Is every step's output made without the steps after it?",
    because="In use the later steps do not exist yet. A model that reads them scores well on "
    "recorded data and fails on live data, and a language model that sees the next symbol learns "
    "to copy it.",
    remedy="Take out what reaches ahead: a backward direction, a convolution that is padded on "
    "both sides, attention without a causal mask, statistics (mean, norm, batch norm) over the "
    "whole row. If every output may read the whole row, say causal=False.",
    limits={"share of the output": 1e-4},
)
def future_read(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The steps from k on are exchanged; outputs before k are compared, for several k."""
    few = seen.few
    if seen.causal is False:
        raise Skip("causal=False says that outputs may read later steps")
    if seen.causal is None:
        _refuse_two_sided(seen)
    if not any(each.time_axis is not None and each.batch_axis is not None for each in few.outputs):
        raise Skip("no output has rows and steps")
    known = steady(seen)
    longest = int(few.ends.max(initial=0))
    if longest < 2:
        raise Skip("the rows have only one step")
    steps = np.arange(few.time)
    found: list[tuple[int, Difference]] = []
    for k in sorted({max(1, round(longest * part)) for part in (0.25, 0.5, 0.75)} | {longest - 1}):
        later = few.valid & (steps >= k)
        after = few.run(few.changed(later, seen.rng(f"{rule.code} {k}")))
        each = [
            each
            for each in differences(few, known, after, few.valid & (steps < k))
            if each.by_step is not None and each.counts
        ]
        found += [(k, difference) for difference in each]
    if not found:
        return
    k, worst = max(found, key=lambda pair: pair[1].share)
    assert worst.by_step is not None
    profile = worst.by_step.max(0)
    reach = k - int(np.flatnonzero(profile > worst.limit)[0])
    yield rule.finding(
        worst.output.name,
        f"Other content from step {k} on changes {worst.output.name} up to {reach} "
        f"{'step' if reach == 1 else 'steps'} before it, by {worst.largest:.3g}, {worst.share:.2%} "
        "of its largest value.",
        {"difference": worst.largest, "share": worst.share, "steps ahead": reach, "step": k},
        picture=Picture(
            "lines",
            f"Steps from {k} on exchanged",
            "step",
            f"largest change of {worst.output.name}",
            {"before the exchange": profile[:k].astype(float)},
        ),
    )


def _refuse_two_sided(seen: Examination) -> None:
    """Raise Skip for a module with a layer that reads both sides by its construction."""
    if seen.subject.bidirectional:
        raise Skip("a layer reads from the end; causal=True asks nevertheless")
    decoder = _decoder(seen)
    if decoder:
        raise Skip(f"{decoder}, so a summary of the row is decoded; causal=True asks nevertheless")
    masked = _masked(seen)
    for name, each in seen.subject.module.named_modules():
        wide = isinstance(each, nn.Conv1d | nn.Conv2d) and max(each.kernel_size) > 1
        looks = isinstance(each, nn.MultiheadAttention) and name not in masked
        looks = looks or (isinstance(each, Transformer) and not each.spec.causal)
        if wide or looks:
            raise Skip(
                f"{name or 'the module'} ({type(each).__name__}) may read on both sides; "
                "causal=True asks nevertheless"
            )


def _decoder(seen: Examination) -> str | None:
    """Return in words which layer makes its steps from a summary of the row; None if none does."""
    try:
        layers = seen.trace.layers
    except Skip:
        return None
    for layer in layers:
        own, steps = layer.valid, layer.x.shape[1]
        if steps > 1 and own.sum(1).max() > 1:
            after = own[:, 1:]
            if (layer.x[:, 1:][after] == layer.x[:, :-1][after]).all():
                return f"{layer.name} reads the same at every step"
        for other in layers:
            # A layer that goes on from its own last state reads a long row piece by piece.
            if other.name.partition("#")[0] == layer.name.partition("#")[0]:
                continue
            for first, states in product(layer.first, other.states):
                last = states[:, -1] if not other.reverse else states[:, 0]
                if first.shape == last.shape and first.any() and np.array_equal(first, last):
                    return f"{layer.name} begins with the last state of {other.name}"
    return None


def _masked(seen: Examination) -> set[str]:
    """Return the names of attention layers that are called with a mask over pairs of steps."""
    module, found = seen.few.copy(), set[str]()

    def look(name: str, given: Mapping[str, Any]) -> None:
        if given.get("attn_mask") is not None or given.get("is_causal"):
            found.add(name)

    for name, each in module.named_modules():
        if isinstance(each, nn.MultiheadAttention):
            each.register_forward_pre_hook(
                lambda _, __, given, name=name: look(name, given), with_kwargs=True
            )
    seen.few.call(module)
    return found
