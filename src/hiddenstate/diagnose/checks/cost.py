"""The loss: it may not count padding, nor ask for what the step was given. HS104, HS106."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.asked import Asked, aligned, asked, axes_of, slopes
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.calling import in_the_loss, seeded
from hiddenstate.diagnose.subject.facts import Mask
from hiddenstate.diagnose.subject.nested import mapped
from hiddenstate.diagnose.subject.subject import Subject, flat
from hiddenstate.diagnose.subject.trailing import ends_of

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

LEAST = 1e-5
SURE = 30.0
"""Logits of a symbol that is certain."""


@rule(
    "HS104",
    "loss-on-padding",
    Severity.ERROR,
    asks="Does the loss leave out what the module gives at padded steps?",
    because="A loss that counts padding teaches the model to predict padding, weighs short rows "
    "more the longer their batch is, and reports a score that no real step has.",
    remedy="Mask it: sum(m * loss) / sum(m) with m = 1 at real steps "
    "(hiddenstate.nn.cross_entropy and its like take the mask), or ignore_index with that symbol "
    "at every padded target.",
    limits={"share of the loss": LEAST},
)
def loss_on_padding(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The outputs change at padded steps only; the loss is computed again."""
    if seen.loss is None:
        raise Skip("no loss was given")
    subject = seen.subject
    yield from _taught_padding(seen, rule)
    padding = ~subject.valid
    if subject.padded is None or not padding.any():
        raise Skip("no row is padded")
    raw = subject.raw(seed=seen.seed)
    generator = torch.Generator().manual_seed(seen.seed)
    changed: list[str] = []
    places = {each.name: each for each in subject.outputs}

    def change(name: str, leaf: Any) -> Any:
        place = places.get(name)
        if place is None or isinstance(leaf, PackedSequence) or not isinstance(leaf, Tensor):
            return leaf
        if place.time_axis is None or place.batch_axis is None or not leaf.is_floating_point():
            return leaf
        view = leaf.clone().movedim((place.batch_axis, place.time_axis), (0, 1))
        there = torch.as_tensor(padding[:, : view.shape[1]], device=leaf.device)
        if not there.any() or _is_attention(view, there):
            return leaf
        changed.append(name)
        own = view[~there]
        size = float(own[own.isfinite()].abs().max()) if own.isfinite().any() else 1.0
        noise = torch.rand(view[there].shape, generator=generator).to(view)
        view[there] = view[there] + (0.5 + noise) * size
        return view.movedim((0, 1), (place.batch_axis, place.time_axis))

    other = mapped(change, raw, "output")
    if not changed:
        raise Skip("no output has padded steps")
    before, after = _value(seen, subject, raw), _value(seen, subject, other)
    gap = abs(after - before)
    counted = gap > LEAST * max(abs(before), abs(after))
    # What adds little to the value still teaches: label smoothing, a bonus for entropy.
    if not counted and not _taught_there(seen, subject, other, padding):
        return
    said = "" if counted else " and have a gradient"
    yield rule.finding(
        f"loss, from {' and '.join(changed)}",
        f"Other values of {' and '.join(changed)} at the {int(padding.sum())} padded steps take "
        f"the loss from {before:.6g} to {after:.6g}{said}; {padding.mean():.0%} of the batch's "
        "steps are padding.",
        {"loss": before, "loss after": after, "share of padding": float(padding.mean())},
        severity=None if subject.padded == "told" else Severity.WARNING,
    )


def _is_attention(view: Tensor, padding: Tensor) -> bool:
    """Return whether an output [B, T, ...] is shares of the steps, 0 in the padding."""
    if bool(view[padding].any()) or bool((view < 0).any()):
        return False
    sums = view.sum(1)
    return bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-4).all())


def _taught_padding(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Yield where a decoder is taught after the end of what it was to write."""
    subject = seen.subject
    try:
        found = slopes(seen, subject.raw(seed=seen.seed))
    except Skip:
        return
    for output in subject.outputs:
        slope = found.get(output.name)
        if slope is None or output.batch_axis != 0 or output.time_axis is not None:
            continue
        for name, fed in aligned(subject):
            if name in subject.sequences or fed.is_floating_point() or fed.ndim != 2:
                continue
            ends = ends_of(fed, subject.symbols) if fed.shape == slope.shape[:2] else None
            if ends is None:
                continue
            there = torch.arange(fed.shape[1]) >= torch.as_tensor(ends)[:, None]
            sizes = slope.abs()
            if float(sizes[there].max()) > LEAST * float(sizes[~there].max()):
                yield rule.finding(
                    f"loss, from {output.name}",
                    f"The loss has a gradient by {output.name} at {int(there.sum())} steps at "
                    f"which {name} has ended: it asks what follows padding.",
                    {"share of padding": float(there.double().mean())},
                    severity=Severity.WARNING,
                )
                return


def _taught_there(seen: Examination, subject: Subject, raw: Any, padding: Mask) -> bool:
    """Return whether the loss has a gradient by outputs at padded steps."""
    try:
        found = slopes(seen, raw)
    except Skip:
        return False
    for output in subject.outputs:
        slope, axes = found.get(output.name), (output.batch_axis, output.time_axis)
        if slope is None or axes[0] is None or axes[1] is None:
            continue
        sizes = slope.movedim((axes[0], axes[1]), (0, 1)).abs()
        there = torch.as_tensor(padding[:, : sizes.shape[1]])
        if there.any() and float(sizes[there].max()) > LEAST * float(sizes[~there].max()):
            return True
    return False


@rule(
    "HS106",
    "answer-given",
    Severity.ERROR,
    asks="Is the answer at a step something else than what the step was given?",
    because="A model that is asked for the very symbol or number that it reads learns to copy it: "
    "the loss falls to nothing, and nothing is predicted.",
    remedy="Shift the answers by one step: read x[:, :-1] and predict x[:, 1:]; a decoder begins "
    "with a start symbol and reads the answer of the step before.",
    limits={"share of the loss": 1e-4},
)
def answer_given(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The loss of the input itself, in the place of what the module gives."""
    if seen.loss is None:
        raise Skip("no loss was given")
    subject = seen.subject
    for each in _asked_for_itself(seen):
        if _reads_step_alone(subject, each.output, each.sequence):
            yield rule.finding(
                f"loss, from {each.output.name}",
                f"The loss's gradient at {each.output.name} points to {each.told} of the same "
                "step, everywhere: the answer is what the step was given.",
            )
            return
    raw = subject.raw(seed=seen.seed)
    usual = _value(seen, subject, raw)
    compared = False
    for output in subject.outputs:
        for name, x in aligned(subject):
            for told, copied, other in _copies(subject, output, raw, name, x):
                compared = True
                exact = _value(seen, subject, copied)
                # A model that explodes is worse than any copy: that of another row tells more.
                beside = min(usual, _value(seen, subject, other))
                # A loss that falls below 0 has no least value to compare with.
                if not 0 <= exact < rule.limits["share of the loss"] * beside:
                    continue
                # What has read the whole row may be asked for it again; what has not read this
                # step is asked for something that it does not know.
                if _reads_step_alone(subject, output, name):
                    yield rule.finding(
                        f"loss, from {output.name}",
                        f"With {told} of the same step in the place of {output.name} the loss "
                        f"falls from {usual:.4g} to {exact:.4g}: the answer is what the step was "
                        "given.",
                        {"loss": usual, "loss of the input": exact},
                    )
                    return
    if not compared:
        raise Skip("no output has the steps and the kind of an input")


def _asked_for_itself(seen: Examination) -> list[Asked]:
    """Return the outputs that are asked for what stands at their step, and for nothing else.

    A part that is made again beside the task (the observation, in a model of a world) is no leak.
    """
    try:
        found = asked(seen)
    except Skip:
        return []
    more = {each.output.name for each in found if each.ahead != 0}
    return [each for each in found if each.alone and each.output.name not in more]


def _copies(
    subject: Subject, output: Output, raw: Any, name: str, x: Tensor
) -> Iterator[tuple[str, Any, Any]]:
    """Yield in words, and as the module would give it, a copy of an argument and of other rows'."""
    given = dict(zip((each.name for each in subject.outputs), flat(raw)))[output.name]
    places = axes_of(output)
    if places is None or given.ndim != 3:
        return
    view = given.movedim(places, (0, 1))
    if x.shape[:2] != view.shape[:2] or not view.is_floating_point():
        return

    def instead(copy: Tensor) -> tuple[Any, Any]:
        def change(each: str, leaf: Any, copy: Tensor) -> Any:
            return copy.movedim((0, 1), places) if each == output.name else leaf

        given, other = (partial(change, copy=each) for each in (copy, copy.roll(1, 0)))
        return mapped(given, raw, "output"), mapped(other, raw, "output")

    width = view.shape[2]
    if not x.is_floating_point():
        if x.ndim == 2 and width > 1 and int(x.min()) >= 0 and int(x.max()) < width:
            sure = nn.functional.one_hot(x.long(), width).to(view) * SURE
            yield name, *instead(sure.log_softmax(-1))
    elif x.ndim == 3 and x.shape[2] == width:
        yield name, *instead(x.to(view))
    elif x.ndim == 3 and width == 1:
        for k in range(x.shape[2]):
            yield f"feature {k} of {name}", *instead(x[..., k : k + 1].to(view))


def _reads_step_alone(subject: Subject, output: Output, name: str) -> bool:
    """Return whether a step of this argument changes the output there, and none before it."""
    places, place = axes_of(output), subject.layout.places[name]
    index = subject.outputs.index(output)
    before = subject.known[index]
    middle = 0 if places is None else before.shape[places[1]] // 2
    if places is None or subject.batch < 2 or middle < 1:
        return False
    axes = (0, 1)
    if place.batch is not None and place.time is not None:
        axes = (place.batch, place.time)

    def exchange(each: str, leaf: Any) -> Any:
        if each != name or not isinstance(leaf, Tensor):
            return leaf
        view = leaf.clone().movedim(axes, (0, 1))
        view[:, middle] = view[:, middle].roll(1, 0)
        return view.movedim((0, 1), axes)

    arguments = {key: mapped(exchange, each, key) for key, each in subject.arguments.items()}
    after = subject.run(arguments)[index]
    moved = (after - before).abs().movedim(places[1], 0).flatten(1).amax(1)
    least = LEAST * float(before.abs().max())
    return bool(moved[middle] > least) and not bool((moved[:middle] > least).any())


def _value(seen: Examination, subject: Subject, raw: Any) -> float:
    assert seen.loss is not None
    with seeded(seen.seed, subject.module), torch.no_grad(), in_the_loss():
        return float(seen.loss(subject.as_given(raw)))
