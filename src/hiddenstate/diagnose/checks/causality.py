"""Causality: what comes later may not change an earlier output. HS111."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.asked import asked
from hiddenstate.diagnose.measures.choices import attends, choices
from hiddenstate.diagnose.measures.compare import Difference, differences, steady
from hiddenstate.diagnose.measures.ways import decodes, reads_both_sides
from hiddenstate.diagnose.subject.layout import every_leaf
from hiddenstate.diagnose.subject.nested import mapped
from hiddenstate.nn import Transformer

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination
    from hiddenstate.diagnose.subject.subject import Subject


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
    if not any(each.time_axis is not None and each.batch_axis is not None for each in few.outputs):
        raise Skip("no output has rows and steps")
    # Who writes a row again from its summary is asked for what the encoder has read.
    ahead = {} if seen.causal or decodes(seen) else _asked_ahead(seen)
    whole = None if seen.causal else _two_sided(seen)
    if whole and not ahead:
        raise Skip(f"{whole}; causal=True asks nevertheless")
    pointing = set[str]() if seen.causal else choices(seen)
    known = steady(seen)
    longest = int(few.ends.max(initial=0))
    if longest < 2:
        raise Skip("the rows have only one step")
    steps = np.arange(few.time)
    found: list[tuple[int, Difference]] = []
    for k in sorted({max(1, round(longest * part)) for part in (0.25, 0.5, 0.75)} | {longest - 1}):
        later = few.changed(few.valid & (steps >= k), seen.rng(f"{rule.code} {k}"))
        asked = {name: _only(few, sequence, later) for name, sequence in ahead.items()}
        runs = [*asked.items()] if whole else [*asked.items(), (None, later)]
        for name, arguments in runs:
            after = few.run(arguments)
            found += [
                (k, each)
                for each in differences(few, known, after, few.valid & (steps < k))
                if each.by_step is not None
                and each.counts
                and (each.output.name not in pointing if name is None else each.output.name == name)
            ]
    if not found:
        return
    k, worst = max(found, key=lambda pair: pair[1].share)
    assert worst.by_step is not None
    profile = worst.by_step.max(0)
    reach = k - int(np.flatnonzero(profile > worst.limit)[0])
    sequence = ahead.get(worst.output.name)
    why = f" The loss asks it for what {sequence} holds there." if sequence else ""
    mild = not sequence and not seen.causal and seen.loss is not None and attends(seen)
    if mild:
        why = " It attends over the steps: where it has the whole row in use, that is right."
    yield rule.finding(
        worst.output.name,
        f"Other content from step {k} on changes {worst.output.name} up to {reach} "
        f"{'step' if reach == 1 else 'steps'} before it, by {worst.largest:.3g}, {worst.share:.2%} "
        f"of its largest value.{why}",
        {"difference": worst.largest, "share": worst.share, "steps ahead": reach, "step": k},
        severity=Severity.NOTE if mild else None,
        picture=Picture(
            "lines",
            f"Steps from {k} on exchanged",
            "step",
            f"largest change of {worst.output.name}",
            {"before the exchange": profile[:k].astype(float)},
        ),
    )


def _asked_ahead(seen: Examination) -> dict[str, str]:
    """Return the outputs that are asked for an input still to come, and which argument it is in."""
    try:
        found = asked(seen)
    except Skip:
        return {}
    return {
        each.output.name: each.sequence
        for each in found
        if each.ahead > 0 and each.sequence in seen.few.sequences
    }


def _only(few: Subject, sequence: str, later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with this one alone as in `later`."""
    changed = dict(every_leaf(later))

    def change(name: str, leaf: Any) -> Any:
        return changed[name] if name == sequence else leaf

    return {name: mapped(change, value, name) for name, value in few.arguments.items()}


def _two_sided(seen: Examination) -> str | None:
    """Return in words which layer reads both sides by its construction; None without one."""
    if seen.subject.bidirectional:
        return "a layer reads from the end"
    masked = _masked(seen)
    for name, each in seen.subject.module.named_modules():
        wide = isinstance(each, nn.Conv1d | nn.Conv2d) and max(each.kernel_size) > 1
        looks = isinstance(each, nn.MultiheadAttention) and name not in masked
        looks = looks or (isinstance(each, Transformer) and not each.spec.causal)
        if wide or looks:
            return f"{name or 'the module'} ({type(each).__name__}) may read on both sides"
    return reads_both_sides(seen)


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
