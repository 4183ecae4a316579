"""The loss's gradient in the layers: HS205, HS206 and HS207."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.sampled import is_finite, name_of
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS205",
    "layer-unread",
    Severity.WARNING,
    asks="Does the loss's gradient reach the states of every layer and direction?",
    because="A layer that gets no gradient stays as it was drawn, and what stands above it has to "
    "live with a random reading of the input; one above which nothing stands is computed for "
    "nothing.",
    remedy="Look behind the layer for .detach() or torch.no_grad(), for an index that takes "
    "another layer's output, or for an output that is thrown away.",
)
def unread(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Layers in whose states, in any call of them, the loss's gradient is 0 throughout."""
    by_layer: dict[str, list[LayerTrace]] = {}
    for layer in seen.costed.layers:
        if layer.gradients is not None and layer.lengths.sum():
            by_layer.setdefault(name_of(layer), []).append(layer)
    if not by_layer:
        raise Skip("no gradient of a layer's states is known")
    for name, calls in by_layer.items():
        if not any(size_of_gradient(layer).any() for layer in calls) and _cut(seen, name):
            steps = sum(int(layer.lengths.sum()) for layer in calls)
            yield rule.finding(
                name,
                f"The loss's gradient by its states is 0 at all {steps} steps of the batch.",
                {"steps": float(steps)},
            )


@rule(
    "HS206",
    "loss-gradient-large",
    Severity.WARNING,
    asks="Are the loss's gradients finite, and of a usual size?",
    because="States are numbers around 1. A loss that asks to change them by thousands moves the "
    "weights out of their range in a few steps, or is clipped at every step, so that all rows pull "
    "alike however wrong they are.",
    remedy="Scale the targets to standard deviation 1, take the mean over rows and steps rather "
    "than the sum, and clip the gradient by its norm. Where it is not finite, look for a "
    "logarithm or square root of 0 or a division by 0 in the loss.",
    limits={"size": 1e3, "sum of sizes": 1e3, "loss a step": 100.0},
)
def large(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The largest |dL/d state|; their sum, which a mean over the batch leaves, and the loss."""
    cost = seen.costed.loss
    assert cost is not None
    if not np.isfinite(cost):
        yield rule.finding("loss", f"The loss is {cost}.", severity=Severity.ERROR)
        return
    layers = [each for each in seen.costed.layers if each.gradients is not None]
    layers = [each for each in layers if each.lengths.sum() and is_finite(each)]
    if not layers:
        raise Skip("no gradient of a layer's states is known")
    for layer in layers:
        sizes = size_of_gradient(layer)
        finite = bool(np.isfinite(sizes).all())
        largest = float(sizes.max()) if finite else float("inf")
        total = float(sizes.sum())
        raw = abs(cost) / layer.valid.sum() >= rule.limits["loss a step"]
        if largest < rule.limits["size"] and not (raw and total >= rule.limits["sum of sizes"]):
            continue
        by_step = np.where(np.isfinite(sizes), sizes, 0).max(axis=0)
        yield rule.finding(
            layer.name,
            f"The loss is {cost:.4g} and its gradient by a state of this layer has a norm of up to "
            f"{largest:.3g}, {total:.3g} in all over the batch."
            if finite
            else f"The loss is {cost:.4g} and its gradient by the states of this layer is not "
            f"finite in {int((~np.isfinite(sizes)).any(axis=1).sum())} of {len(sizes)} rows.",
            {"size": largest, "sum of sizes": total, "loss": cost} if finite else {"loss": cost},
            severity=None if finite else Severity.ERROR,
            picture=Picture(
                "lines",
                f"Gradient of the loss in {layer.name}",
                "step",
                "largest |dL / d state| over the rows",
                {"gradient": by_step.astype(float)},
                log_y=True,
            ),
        )


@rule(
    "HS207",
    "gradient-fades-with-depth",
    Severity.WARNING,
    asks="Does the loss's gradient reach the lowest layer of a stack?",
    because="Each layer hands on a share of the gradient that comes to it. Where the lowest of "
    "many gets next to none beside the one that gets most, it learns nothing while the others "
    "train on what it happens to give them.",
    remedy="Add each layer's input to its output (residual=True in hiddenstate.nn), use fewer "
    "layers, or normalise between them (layer_norm).",
    limits={"share": 3e-4, "layers": 3},
)
def fades(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """|dL/dh| of the lowest layer beside the largest one above it, all rows and steps together."""
    stacks: dict[str, dict[str, float]] = {}
    for layer in seen.costed.layers:
        if layer.gradients is None or "#" in layer.name or not is_finite(layer):
            continue
        size = float(np.linalg.norm(layer.gradients.h.astype(np.float64)))
        stacks.setdefault(re.sub(r"\d+", "*", layer.name), {})[layer.name] = size
    deep = {key: each for key, each in stacks.items() if len(each) >= rule.limits["layers"]}
    if not deep:
        raise Skip(f"no stack has {rule.limits['layers']:.0f} layers")
    for sizes in deep.values():
        lowest, *above = sizes.values()
        if not 0 < lowest < rule.limits["share"] * max(above) < np.inf:
            continue
        share = lowest / max(above)
        yield rule.finding(
            next(iter(sizes)),
            f"The loss's gradient by its states has a norm of {lowest:.2g}, {share:.1g} of the "
            f"largest one in the {len(above)} layers above it.",
            {"share": share, "layers": float(len(sizes))},
            picture=Picture(
                "bars",
                "Gradient of the loss by layer",
                "layer",
                "|dL / dh| over all rows and steps",
                {"gradient": np.array(list(sizes.values()))},
                labels=tuple(sizes),
                log_y=True,
            ),
        )


def _cut(seen: Examination, name: str) -> bool:
    """Return whether no gradient comes either where parameters that begin at 0 are not 0.

    A head or a scale of 0 lets nothing back in the first step, and is the first to be trained.
    """
    layers = [each for each in seen.stirred.layers if name_of(each) == name]
    return not any(size_of_gradient(each).any() for each in layers if each.gradients is not None)


def by_distance(layer: LayerTrace) -> Floats:
    """Return the root mean square |dL/d state| [T] by steps before a row's end in reading order."""
    sizes, lengths = size_of_gradient(layer), layer.lengths
    back = np.arange(int(lengths.max()))
    found = np.zeros(len(back))
    for distance in back:
        rows = np.flatnonzero(lengths > distance)
        at = sizes[rows, lengths[rows] - 1 - distance]
        found[distance] = np.sqrt(np.square(at).mean())
    return found


def size_of_gradient(layer: LayerTrace) -> Floats:
    """Return |dL/d state| [B, T] of a layer in its reading order; 0 past a row's length."""
    gradients = layer.turned().gradients
    assert gradients is not None
    with np.errstate(over="ignore", invalid="ignore"):
        squares = sum(np.square(each.astype(np.float64)).sum(axis=-1) for each in gradients)
        return np.asarray(np.sqrt(squares) * layer.valid)
