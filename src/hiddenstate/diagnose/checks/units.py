"""Units that do nothing, or all the same, or run out of range: HS311 to HS316."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import Elman
from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.roles import candidate, candidate_name
from hiddenstate.diagnose.measures.sampled import layers_of, sample
from hiddenstate.diagnose.tracing.record import LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

LEAST_STEPS = 10


@rule(
    "HS311",
    "units-dead",
    Severity.WARNING,
    asks="Does every unit take more than one value?",
    because="A unit with one value for all rows and steps says nothing, and a relu that is never "
    "on gets no gradient: it does not come back by itself.",
    remedy="With relu lower the learning rate and start from init='identity' with small input "
    "weights, or use tanh. With tanh scale the inputs, so that no unit is pressed to 1 or -1.",
    limits={"share of units": 0.3, "share of relu units": 0.9, "spread": 1e-6},
)
def dead(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The units of h whose spread is nothing beside that of the usual one."""
    for layer in _long_enough(seen):
        h = sample(layer, layer.states.h)
        size = max(float(np.abs(h).max()), 1e-30)
        still = h.std(axis=0) <= rule.limits["spread"] * size
        share = float(still.mean())
        if share < rule.limits["share of units"]:
            continue
        # A relu is off for some time in any model; a tanh that stands still has no weights.
        usual = _is_relu(layer) and share < rule.limits["share of relu units"]
        severity = Severity.NOTE if usual else Severity.WARNING
        if still.all():
            severity = Severity.ERROR
        zero = int((still & (np.abs(h).max(axis=0) == 0)).sum())
        yield rule.finding(
            layer.name,
            f"{int(still.sum())} of {len(still)} units have one value at all {len(h)} steps that "
            f"were looked at; {zero} of them are 0 throughout.",
            {"share of units": share, "units": float(still.sum()), "zero": float(zero)},
            severity=severity,
            picture=Picture(
                "bars",
                f"Spread of each unit of {layer.name}",
                "unit",
                "standard deviation over rows and steps",
                {"h": h.std(axis=0)},
            ),
        )


@rule(
    "HS312",
    "units-alike",
    Severity.WARNING,
    asks="Do units differ from each other?",
    because="Units with the same weights do the same, and only what reads them tells them apart. "
    "Where that treats them alike as well, they get the same gradient and stay the same through "
    "any training; where it does not, they learn as one until they have drifted apart.",
    remedy="Draw the weights at random (Cell.init, or torch's own reset_parameters); never fill "
    "them with one number.",
    limits={"share of units": 0.5, "difference": 1e-5},
)
def alike(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Units of one trajectory and one set of input weights, by a random projection of both."""
    for layer in _long_enough(seen):
        if layer.cell.output_size != layer.cell.hidden_size or layer.cell.hidden_size < 2:
            continue
        like = _like(layer, rule.limits["difference"])
        count = int((like >= 0).sum())
        if not count:
            continue
        share = count / len(like)
        yield rule.finding(
            layer.name,
            f"{count} of {len(like)} units have the same input weights and the same values at "
            f"every step as another unit.{_pulled_apart(seen, layer, like)}",
            {"share of units": share, "units": float(count)},
            severity=None if share >= rule.limits["share of units"] else Severity.NOTE,
            picture=Picture(
                "heat",
                f"Units of {layer.name} over one row",
                "step",
                "unit",
                {"h": np.asarray(layer.states.h[int(np.argmax(layer.lengths))].T, float)},
            ),
        )


@rule(
    "HS313",
    "state-explodes",
    Severity.WARNING,
    asks="Do the states stay in a range that the next layer can read?",
    because="A state that grows without end drowns what is new in what is old, and its gradient "
    "grows with it until both are no numbers any more.",
    remedy="With relu start from orthogonal or identity recurrent weights (largest singular value "
    "1) and clip the gradient by norm, or use tanh or a gated cell.",
    limits={"size": 1e4},
)
def state_explodes(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The largest number in a state."""
    found = False
    for layer in (each for each in seen.trace.layers if each.lengths.sum()):
        found = True
        if not all(np.isfinite(each).all() for each in (layer.x, *layer.params.values())):
            continue
        sizes = [np.abs(each).max(axis=(0, 2)) for each in layer.turned().states]
        size = np.max(sizes, axis=0)
        numbers = np.isfinite(size)
        if numbers.all() and size.max() < rule.limits["size"]:
            continue
        largest = float(size[numbers].max(initial=0.0))
        told = f"{largest:.3g} within {len(size)} steps"
        if not numbers.all():
            told = f"no number any more after {int(np.argmin(numbers)) + 1} steps"
        yield rule.finding(
            layer.name,
            f"The largest number in its state is {size[0]:.3g} after the first step and {told}, "
            f"from inputs of at most {float(np.abs(layer.x).max()):.3g}.",
            {"size": largest, "steps": float(len(size))},
            severity=None if numbers.all() else Severity.ERROR,
            picture=Picture(
                "lines",
                f"Largest number in the state of {layer.name}",
                "step",
                "size",
                {"state": size[numbers].astype(float)},
                log_y=True,
            ),
        )
    if not found:
        raise Skip("no recurrent layer ran a step")


@rule(
    "HS314",
    "memory-saturated",
    Severity.WARNING,
    asks="Can the output still see the memory c change?",
    because="An LSTM shows tanh(c). Where |c| is 5 and more that is 1 or -1: the memory may still "
    "count, and the output no longer sees it; nor does a gradient come back to it.",
    remedy="Let it forget: a forget gate, or a smaller forget bias (1 is usual). Scale the inputs, "
    "and cut histories that are longer than what has to be remembered.",
    limits={"size": 5.0, "share": 0.95},
)
def memory_saturated(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of |c| beyond sight at the ends of the rows."""
    layers = [
        layer
        for layer in _long_enough(seen)
        if "c" in layer.states._fields and not getattr(layer.cell, "layer_norm", False)
    ]
    if not layers:
        raise Skip("no layer has a memory c that is squashed")
    for layer in layers:
        rows = np.flatnonzero(layer.lengths)
        ends = np.abs(layer.states.c[rows, layer.lengths[rows] - 1])
        share = float((ends > rule.limits["size"]).mean())
        if share < rule.limits["share"]:
            continue
        over_time = np.abs(layer.states.c).max(axis=0).mean(axis=1)
        yield rule.finding(
            layer.name,
            f"At the ends of the rows {share:.0%} of its memory has |c| over "
            f"{rule.limits['size']:g}; the middle one is {float(np.median(ends)):.3g}.",
            {"share": share, "size": float(np.median(ends))},
            picture=Picture(
                "lines",
                f"Size of the memory of {layer.name}",
                "step",
                "largest |c| over the rows, mean over the units",
                {"c": over_time.astype(float)},
            ),
        )


@rule(
    "HS315",
    "candidate-saturated",
    Severity.WARNING,
    asks="Does what is written have more values than 1 and -1?",
    because="Pressed to 1 or -1 a unit tells no more than a sign of what it read, and the slope of "
    "its tanh is near 0: no gradient passes.",
    remedy="Scale the inputs to mean 0 and standard deviation 1 where the inputs do it; draw the "
    "recurrent weights orthogonal (Cell.init) where those do.",
    limits={"edge": 0.99, "share": 0.9, "sum": 8.0},
)
def candidate_saturated(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of |tanh| near 1, and which part of the sum it comes from."""
    layers = [layer for layer in _long_enough(seen) if not _is_relu(layer)]
    if not layers:
        raise Skip("no layer has a tanh")
    for layer in layers:
        signed = sample(layer, candidate(layer))
        values, edge = np.abs(signed), rule.limits["edge"]
        share = float((values > edge).mean())
        sides = np.maximum((signed > edge).mean(axis=0), (signed < -edge).mean(axis=0))
        # States of 1 and -1 may hold what was read; a unit that stays on one side holds nothing,
        # unless a gate of its own says how much of it is written.
        gated = "i" in layer.gates._fields
        one_sided = 0.0 if gated else float((sides > rule.limits["share"]).mean())
        if max(share, one_sided) < rule.limits["share"]:
            continue
        row = layer.cell.blocks.index(candidate_name(layer.cell))
        own = float(np.median(np.abs(sample(layer, layer.projected)[:, row])))
        past = _from_past(layer, row)
        if max(own, past) < rule.limits["sum"] and one_sided < rule.limits["share"]:
            continue
        edges = np.linspace(0, 1, 21)
        yield rule.finding(
            layer.name,
            f"{share:.0%} of what it writes is beyond {rule.limits['edge']:g} or below "
            f"{-rule.limits['edge']:g}. In the middle the input adds {own:.3g} to the sum under "
            f"the tanh and the state {past:.3g}, where 3 is next to 1 already; {one_sided:.0%} of "
            "the units stay on one side.",
            {"share": share, "input": own, "state": past, "one-sided units": one_sided},
            picture=Picture(
                "histogram",
                f"What {layer.name} writes",
                "size",
                "share of all units and steps",
                {candidate_name(layer.cell): np.histogram(values, edges)[0] / values.size},
                x=edges,
            ),
        )


@rule(
    "HS316",
    "input-absent",
    Severity.WARNING,
    asks="Does what the layer reads change what it does?",
    because="Where W_x x is the same at every step, the layer runs on its own: nothing that is "
    "read gets in, and nothing about it can be learned.",
    remedy="Scale the inputs: subtract the mean and divide by the standard deviation of the "
    "training part. Where inputs are fine, look whether W_x was set to 0.",
    limits={"spread": 1e-3, "share of its size": 0.01},
)
def input_absent(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The spread over rows and steps of what the input adds to the rows, of the middle unit."""
    for layer in _long_enough(seen):
        x, added = sample(layer, layer.x), sample(layer, layer.projected)
        spread = float(np.median(added.std(axis=0)))
        size = float(np.median(np.abs(added)))
        absent = spread < rule.limits["spread"]
        if not (absent or spread < rule.limits["share of its size"] * size):
            continue
        varies = float(x.std(axis=0).max())
        # A decoder that is only started from a state reads zeros on purpose.
        idle = not x.any() and any(each.any() for each in layer.first)
        yield rule.finding(
            layer.name,
            f"What the input adds before squashing is {size:.3g} in the middle and changes by "
            f"{spread:.2g} over rows and steps (standard deviation); the inputs change by at most "
            f"{varies:.2g}, around {float(np.abs(x.mean(axis=0)).max()):.3g}.",
            {"spread": spread, "size": size, "of the inputs": varies},
            severity=Severity.NOTE if idle else None,
        )


def _long_enough(seen: Examination) -> list[LayerTrace]:
    layers = [each for each in layers_of(seen.trace) if each.valid.sum() >= LEAST_STEPS]
    if not layers:
        raise Skip(f"the batch has fewer than {LEAST_STEPS} steps in all")
    return layers


def _is_relu(layer: LayerTrace) -> bool:
    return isinstance(layer.cell, Elman) and layer.cell.activation == "relu"


def _like(layer: LayerTrace, difference: float) -> NDArray[np.int64]:
    """Return [H], the number of a unit's like, -1 where it has none or never moves."""
    h = sample(layer, layer.states.h)
    moving = h.std(axis=0) > 1e-6 * max(float(np.abs(h).max()), 1e-30)
    height = layer.cell.hidden_size
    weights = np.asarray(layer.params["w_x"], np.float64).reshape(-1, height, layer.x.shape[2])
    told = np.concatenate([*weights.swapaxes(1, 2), h / max(float(np.abs(h).max()), 1e-30)])
    drawn = np.random.default_rng(0).standard_normal((3, len(told))) @ told
    order = np.argsort(drawn[0])
    gaps = np.abs(np.diff(drawn[:, order], axis=1)).max(axis=0)
    near = (gaps <= difference * np.abs(drawn).max()) & moving[order][1:] & moving[order][:-1]
    like = np.full(height, -1)
    like[order[1:][near]], like[order[:-1][near]] = order[:-1][near], order[1:][near]
    return like


def _pulled_apart(seen: Examination, layer: LayerTrace, like: NDArray[np.int64]) -> str:
    """Return a sentence on whether the loss's gradient differs between units that are alike."""
    try:
        costed = next(each for each in seen.costed.layers if each.name == layer.name)
    except Skip:
        return ""
    if costed.gradients is None:
        return ""
    gradient = np.asarray(costed.gradients.h[costed.valid], np.float64)
    units = np.flatnonzero(like >= 0)
    gap = np.abs(gradient[:, units] - gradient[:, like[units]]).max()
    if gap <= 1e-4 * np.abs(gradient).max():
        return " The loss's gradient by them is the same too: they will stay alike."
    return " The loss's gradient by them differs, so training will part them, late."


def _from_past(layer: LayerTrace, row: int) -> float:
    """Return the middle size of what the state adds to one block's rows."""
    w_h = layer.params["w_h"].reshape(-1, layer.cell.hidden_size, layer.cell.output_size)[row]
    return float(np.median(np.abs(sample(layer, layer.states.h) @ w_h.T)))
