"""Gates that say the same whatever is read: HS301 to HS306."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.roles import block, gate_names, keeping, keeping_name, writing
from hiddenstate.diagnose.measures.sampled import layers_of, sample
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

BINS = 20


@rule(
    "HS301",
    "gates-saturated",
    Severity.WARNING,
    asks="Do the gates still move between shut and open?",
    because="Next to 0 or 1 a sigmoid is flat: no gradient passes through it, so a gate that sits "
    "there no longer learns when to open. At the start of a training it never begins to.",
    remedy="Scale the inputs to mean 0 and standard deviation 1, per feature and from the training "
    "part alone; start from smaller weights and biases.",
    limits={"edge": 0.01, "share": 0.9, "share by the input": 0.6, "input": 6.0},
)
def saturated(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of all gates' values next to 0 or 1; fewer are enough where the input does it.

    What was trained has gates at the edge where its data decide, and inputs of usual size.
    """
    for layer in _gated(seen):
        share = _at_edge(layer, rule.limits["edge"])
        names = gate_names(layer.cell)
        rows = [layer.cell.blocks.index(name) for name in names]
        alone = float(np.median(np.abs(sample(layer, layer.projected)[:, rows])))
        by_input = alone >= rule.limits["input"]
        if share < rule.limits["share by the input" if by_input else "share"]:
            continue
        yield rule.finding(
            layer.name,
            f"{share:.0%} of the values of its gates {_listed(names)} lie within "
            f"{rule.limits['edge']:g} of 0 or 1. Before squashing, the input alone adds "
            f"{alone:.3g} in the middle, where 1 is usual and 5 is next to 1 already.",
            {"share": share, "input": alone},
            picture=_histogram(layer),
        )


@rule(
    "HS302",
    "gates-still",
    Severity.WARNING,
    asks="Do the gates answer to what is read?",
    because="A gate with one value for all steps is a constant factor: the cell has its "
    "parameters, and no more abilities than one without the gate.",
    remedy="Look at what the layer reads: numbers as small as 0.001, or features that never "
    "change, leave every gate at its bias. Scale the inputs to standard deviation 1 and draw the "
    "weights anew (Cell.init).",
    limits={"spread": 5e-4},
)
def still(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The standard deviation of each gate over rows and steps, of the middle unit."""
    for layer in _gated(seen):
        if layer.valid.sum() < 2 or _at_edge(layer, 0.01) > 0.5:
            continue
        spreads = {
            name: float(np.median(sample(layer, getattr(layer.gates, name)).std(axis=0)))
            for name in gate_names(layer.cell)
        }
        quiet = [name for name, spread in spreads.items() if spread < rule.limits["spread"]]
        if not quiet:
            continue
        every = len(quiet) == len(spreads)
        yield rule.finding(
            layer.name,
            f"Its gate{'s' * (len(quiet) > 1)} {_listed(quiet)} keep{'s' * (len(quiet) == 1)} one "
            "value: over all rows and steps the standard deviation is "
            f"{max(spreads[name] for name in quiet):.2g} in the middle unit.",
            spreads,
            severity=None if every else Severity.NOTE,
            picture=_histogram(layer),
        )


@rule(
    "HS303",
    "memory-shut",
    Severity.WARNING,
    asks="Do the gates keep something of the old state?",
    because="What a cell holds through time it holds through this gate. Shut in every unit, it "
    "forgets all at every step, and the gradient along the memory (the product of these gates) "
    "ends with it, so it does not learn to open either.",
    remedy="Start with the gate open: the LSTM's forget bias at 1 "
    "(hiddenstate.nn.LSTM's default; in torch bias_hh_l0[H:2*H] = 1), or init='chrono' for "
    "memories of known length. In a GRU see that the update gate is read the way its weights were "
    "trained: z keeps in torch and Keras, and writes in some papers.",
    limits={"kept": 0.05, "share of units": 0.95},
)
def memory_shut(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The mean share of the old memory that each unit keeps."""
    for layer in _gated(seen):
        kept = keeping(layer)
        if kept is None:
            continue
        means = sample(layer, kept).mean(axis=0)
        share = float((means < rule.limits["kept"]).mean())
        if share < rule.limits["share of units"]:
            continue
        name, middle = keeping_name(layer.cell), float(np.median(means))
        yield rule.finding(
            f"{layer.name}, {name}",
            f"{name}, the share of the old memory that stays, is {middle:.2g} at a usual step, "
            f"under {rule.limits['kept']:g} in {share:.0%} of the units: after two steps "
            f"{middle**2:.1g} is left.{_bias(layer, name)}",
            {"kept": middle, "share of units": share},
            picture=_histogram(layer),
        )


@rule(
    "HS304",
    "nothing-written",
    Severity.WARNING,
    asks="Is anything of what is read written into the memory?",
    because="The memory of a cell changes only through this gate. Shut in every unit, the state "
    "stays where it began, whatever is read, and next to no gradient reaches the weights.",
    remedy="Give the gate a bias near 0, or one made for the lengths at hand (init='chrono' with "
    "longest_lag_steps = the longest row). In a GRU see that the update gate is read the way its "
    "weights were trained.",
    limits={"written over the longest row": 0.1, "share of units": 0.95},
)
def nothing_written(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """What each unit writes in all, over the longest row."""
    for layer in _gated(seen):
        written = writing(layer)
        if written is None:
            continue
        longest = int(layer.lengths.max())
        means = sample(layer, written).mean(axis=0)
        limit = rule.limits["written over the longest row"]
        share = float((means * longest < limit).mean())
        if share < rule.limits["share of units"]:
            continue
        middle = float(np.median(means))
        yield rule.finding(
            layer.name,
            f"A usual unit writes {middle:.1g} of each new value into its memory, "
            f"{middle * longest:.2g} in all over the longest row of {longest} steps.",
            {"written": middle, "longest": longest, "share of units": share},
            picture=_histogram(layer),
        )


@rule(
    "HS305",
    "reset-stuck",
    Severity.WARNING,
    asks="Do the reset gates let the past into what is written?",
    because="With r at 0 everywhere the candidate is made from the present input alone: the GRU is "
    "a running mean of its inputs and cannot combine them with what came before. With r at 1 "
    "everywhere it has no reset gate, which is no harm.",
    remedy="Give the reset gate a bias near 0. Where weights were imported, compare the order of "
    "the gates: r z n in torch, z r h in Keras and ONNX (hiddenstate convert proves equality).",
    limits={"open": 0.05, "share of units": 0.95},
)
def reset_stuck(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The mean of r in each unit."""
    layers = [layer for layer in _gated(seen) if "r" in layer.gates._fields]
    if not layers:
        raise Skip("no layer has a reset gate")
    for layer in layers:
        means, least = sample(layer, layer.gates.r).mean(axis=0), rule.limits["open"]
        for stuck, value in ((means < least, 0), (means > 1 - least, 1)):
            if stuck.mean() < rule.limits["share of units"]:
                continue
            yield rule.finding(
                f"{layer.name}, r",
                f"The reset gates stay near {value}: {float(np.median(means)):.2g} on average in "
                f"the middle unit, and in {stuck.mean():.0%} of the units within {least:g} of it.",
                {"r": float(np.median(means)), "share of units": float(stuck.mean())},
                severity=Severity.NOTE if value else None,
                picture=_histogram(layer),
            )


@rule(
    "HS306",
    "output-shut",
    Severity.WARNING,
    asks="Do the output gates show what the memory holds?",
    because="What is outside the cell sees its memory only through this gate. Shut in every unit, "
    "the output is near 0 whatever is remembered, and so is the gradient that comes back.",
    remedy="Give the output gate a bias near 0.",
    limits={"open": 0.05, "share of units": 0.95},
)
def output_shut(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The mean of o in each unit."""
    layers = [layer for layer in _gated(seen) if "o" in layer.gates._fields]
    if not layers:
        raise Skip("no layer has an output gate")
    for layer in layers:
        means = sample(layer, layer.gates.o).mean(axis=0)
        share = float((means < rule.limits["open"]).mean())
        if share >= rule.limits["share of units"]:
            yield rule.finding(
                f"{layer.name}, o",
                f"The output gate lets through {float(np.median(means)):.2g} of the memory in the "
                f"middle unit, under {rule.limits['open']:g} in {share:.0%} of the units."
                f"{_bias(layer, 'o')}",
                {"open": float(np.median(means)), "share of units": share},
                picture=_histogram(layer),
            )


def _gated(seen: Examination) -> list[LayerTrace]:
    layers = [layer for layer in layers_of(seen.trace) if gate_names(layer.cell)]
    if not layers:
        raise Skip("no layer has gates")
    return layers


def _at_edge(layer: LayerTrace, edge: float) -> float:
    """Return the share of the values of all gates that lie next to 0 or 1."""
    values = np.stack([sample(layer, getattr(layer.gates, n)) for n in gate_names(layer.cell)])
    return float(((values < edge) | (values > 1 - edge)).mean())


def _bias(layer: LayerTrace, name: str) -> str:
    """Return a sentence on the bias of a gate's rows, where they have one."""
    own = name.removeprefix("1 - ")
    biases = [layer.params[each] for each in ("b_x", "b_h") if each in layer.params]
    if not biases:
        return ""
    total: Floats = sum((block(layer.cell, each, own) for each in biases), np.zeros(1))
    return f" The bias of {own} is {float(np.median(total)):.2g} in the middle."


def _histogram(layer: LayerTrace) -> Picture:
    edges = np.linspace(0, 1, BINS + 1)
    shares = {}
    for name in gate_names(layer.cell):
        counts, _ = np.histogram(sample(layer, getattr(layer.gates, name)), edges)
        shares[name] = counts / counts.sum()
    return Picture(
        "histogram",
        f"How open the gates of {layer.name} are",
        "value of the gate",
        "share of all units and steps",
        shares,
        x=edges,
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names)
