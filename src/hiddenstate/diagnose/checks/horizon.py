"""How far back the state reaches: HS201, HS202 and HS203."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.checks.gradients import by_distance
from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.dynamics import largest_singular
from hiddenstate.diagnose.measures.memory import Memory, memory
from hiddenstate.diagnose.measures.roles import keeping, keeping_name
from hiddenstate.diagnose.measures.sampled import layers_of, sample
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

LEAST_STEPS = 10
NEARLY_NONE = 0.01


@rule(
    "HS201",
    "memory-vanished",
    Severity.WARNING,
    asks="Does anything of a state reach the states that follow?",
    because="An earlier step reaches the present only through a product of Jacobians, one for each "
    "step between. Where that is next to nothing after one or two steps, nothing earlier can be "
    "used, and no gradient comes back from which using it could be learned. Clipping is no "
    "cure: it bounds gradients that are too large.",
    remedy="Draw the recurrent weights orthogonal (Cell.init's default), start the gates that keep "
    "open (forget bias 1, or init='chrono'), scale the inputs so that no unit saturates; or use a "
    "cell whose memory adds, an LSTM or a GRU.",
    limits={"left after 1 step": 0.03, "left after 2 steps": 1e-3, "steps": LEAST_STEPS},
)
def vanished(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """What is left of a state one and two steps on, by gradient and by exchange."""
    easy = _loss_is_nearly_none(seen)
    for layer, found in _remembered(seen):
        left = found.reach
        after = left[1], left[min(2, len(left) - 1)]
        if after[0] >= rule.limits["left after 1 step"]:
            continue
        if after[1] >= rule.limits["left after 2 steps"]:
            continue
        yield rule.finding(
            layer.name,
            f"Of a difference in its state {after[0]:.2g} is left one step on and {after[1]:.1g} "
            f"after two; the rows have up to {found.longest} steps.{_why(layer)}"
            + (" The loss is nearly 0, so these data may need no memory." if easy else ""),
            {"after 1 step": after[0], "after 2 steps": after[1], "longest": found.longest},
            severity=Severity.NOTE if easy else None,
            picture=by_lag(layer, found),
        )


@rule(
    "HS202",
    "gradient-explodes",
    Severity.WARNING,
    asks="Do gradients through time stay in bounds?",
    because="A small change of an early state changes late ones many hundred times as much: the "
    "loss has cliffs, and one step of training on such a sequence throws the weights away.",
    remedy="Clip the gradient by its global norm (1 is usual), and draw the recurrent weights "
    "orthogonal, so that their largest singular value is 1. In a relu network start from "
    "init='identity' and a lower learning rate.",
    limits={"growth": 300.0, "steps": LEAST_STEPS},
)
def explodes(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The largest gain over all lags."""
    for layer, found in _remembered(seen):
        at = int(np.argmax(found.gain))
        growth = float(found.gain[at])
        if not growth < rule.limits["growth"]:
            yield rule.finding(
                layer.name,
                f"|d state(t) / d state(t - {found.lags[at]})| is {growth:.3g}, "
                f"{growth ** (1 / max(1, int(found.lags[at]))):.3g}-fold a step.",
                {"growth": growth, "lag": float(found.lags[at])},
                picture=by_lag(layer, found),
            )


@rule(
    "HS203",
    "memory-short",
    Severity.NOTE,
    asks="Does the memory reach over the whole of the longest row?",
    because="What lies further back than the horizon changes the present by less than a hundredth "
    "of what the last step does: it is as good as forgotten, and training hears next to nothing of "
    "it. Data that need no more than the last steps are served well all the same; where scores "
    "get worse with the length of the history, this is the reason, and clipping is not the cure.",
    remedy="For longer memories: an LSTM or GRU in the place of a plain cell, init='chrono' with "
    "longest_lag_steps = the longest row, attention over the states; or shorter inputs (larger "
    "time steps, fewer symbols).",
    limits={"share": NEARLY_NONE, "steps": LEAST_STEPS},
)
def short(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The lag from which on gradient and exchange stay under a share of their first value."""
    for layer, found in _remembered(seen):
        share = rule.limits["share"]
        horizon = found.horizon(share, found.reach)
        if horizon is None:
            continue
        by_gradient = found.horizon(share)
        told = f"From {horizon} steps back on less than {share:.0%} of a state is left"
        if by_gradient is not None and by_gradient < horizon:
            told += f" ({by_gradient} by the gradient alone: the rest is latched)"
        longer = float((layer.lengths[layer.lengths > 0] > horizon).mean())
        yield rule.finding(
            layer.name,
            f"{told}; {longer:.0%} of the rows are longer than that, the longest has "
            f"{found.longest} steps.{_elman_beside(found, horizon)}",
            {"horizon": horizon, "longest": found.longest, "rows beyond": longer},
            picture=by_lag(layer, found, _heard(seen, layer)),
        )


def by_lag(layer: LayerTrace, found: Memory, heard: Floats | None = None) -> Picture:
    """Return the picture of a layer's memory: every measure by lag, on a log axis.

    heard: the loss's gradient [T] by steps before the end, where there is one
    """
    curves: dict[str, Floats] = {
        "gradient (largest singular value)": found.gain,
        "exchanged state": found.swapped,
    }
    if found.keeping is not None:
        curves[f"product of {keeping_name(layer.cell)}"] = found.keeping
    if found.recurrent is not None:
        curves["a plain cell of the same weights"] = found.recurrent
    if heard is not None and heard.max() > 0:
        curves["the loss's gradient, so far before the end"] = (heard / heard.max())[found.lags]
    floor = 1e-8
    return Picture(
        "lines",
        f"Memory of {layer.name} by lag",
        "lag (steps)",
        "what is left",
        {name: np.where(curve > floor, curve, np.nan) for name, curve in curves.items()},
        x=found.lags.astype(np.float64),
        log_y=True,
        note="What a change of the state, or another state in its place, still matters so many "
        "steps later.",
    )


def _remembered(seen: Examination) -> list[tuple[LayerTrace, Memory]]:
    layers = [each for each in layers_of(seen.trace) if each.lengths.max() >= LEAST_STEPS]
    if not layers:
        raise Skip(f"no row has {LEAST_STEPS} steps")
    return [(layer, memory(layer)) for layer in layers]


def _heard(seen: Examination, layer: LayerTrace) -> Floats | None:
    """Return the loss's gradient in a layer by steps before the end; None without a loss."""
    try:
        costed = seen.costed.layers
    except Skip:
        return None
    for each in costed:
        if each.name == layer.name and each.gradients is not None:
            return by_distance(each)
    return None


def _loss_is_nearly_none(seen: Examination) -> bool:
    try:
        cost = seen.costed.loss
    except Skip:
        return False
    return cost is not None and abs(cost) < NEARLY_NONE


def _why(layer: LayerTrace) -> str:
    """Return a sentence on what the weights and gates say about a memory that has gone."""
    kept = keeping(layer)
    if kept is not None:
        middle = float(np.median(sample(layer, kept)))
        return f" {keeping_name(layer.cell)}, the share of the memory kept, is {middle:.2g}."
    size = largest_singular(layer.params["w_h"])
    h = sample(layer, layer.states.h)
    pressed = float((np.abs(h) > 0.99).mean())
    said = f" The largest singular value of w_h is {size:.2g}"
    return said + (f", and {pressed:.0%} of the states are pressed to 1 or -1." if pressed else ".")


def _elman_beside(found: Memory, horizon: int) -> str:
    """Return a sentence that sets the path along the memory beside a plain cell's product."""
    if found.keeping is None or found.recurrent is None:
        return ""
    at = int(np.searchsorted(found.lags, horizon))
    return (
        f" At that lag the product of its keeping gates is {found.keeping[at]:.1g} in its best "
        f"unit; the product of Jacobians of a plain cell with its weights is "
        f"{found.recurrent[at]:.1g}."
    )
