"""Weights as they should not be drawn: HS401 to HS405."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.cells import Elman
from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.drawn import drawn_at_random
from hiddenstate.diagnose.measures.dynamics import largest_singular
from hiddenstate.diagnose.measures.roles import block
from hiddenstate.diagnose.measures.sampled import layers_of
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS401",
    "weights-constant",
    Severity.WARNING,
    asks="Were the weight matrices drawn at random?",
    because="A matrix of one number treats all units alike. Where input and recurrent weights are "
    "both so, the units do the same and are told apart by what reads them alone; recurrent weights "
    "that are 0 carry nothing at first. Either way the layer learns later than one that was drawn.",
    remedy="Draw the weights: Cell.init, or reset_parameters in torch. Set biases to constants, "
    "not matrices.",
)
def constant(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Blocks of w_x and w_h, of at least four numbers, that hold one number."""
    for layer in layers_of(seen.trace):
        told = {}
        for weight in ("w_x", "w_h"):
            for name in layer.cell.blocks:
                rows = block(layer.cell, layer.params[weight], name)
                if rows.size >= 4 and np.ptp(rows) == 0:
                    told[f"{weight} of {name}"] = float(rows.flat[0])
        if told:
            listed = ", ".join(f"{name} is {value:.3g}" for name, value in told.items())
            yield rule.finding(layer.name, f"Throughout, {listed}.", told)


@rule(
    "HS402",
    "orthogonal-as-one",
    Severity.WARNING,
    asks="Are orthogonal recurrent weights orthogonal for each gate?",
    because="The gates' recurrent matrices lie stacked in one, [G H, H]. Made orthogonal as a "
    "whole, each gate's part shrinks to a matrix with singular values around 1/sqrt(G), half for "
    "an LSTM: what was to keep its length fades from the first step on.",
    remedy="Orthogonalise the parts one by one: Cell.init does; in torch "
    "for part in weight_hh_l0.chunk(4): nn.init.orthogonal_(part).",
    limits={"of the whole": 0.01, "of a part": 0.1},
)
def as_one(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Whether w_h^T w_h is a multiple of the identity and no part's is."""
    layers = [each for each in layers_of(seen.trace) if len(each.cell.blocks) > 1]
    if not layers:
        raise Skip("no layer has more than one recurrent matrix")
    for layer in layers:
        w_h = np.asarray(layer.params["w_h"], np.float64)
        whole = _off_orthogonal(w_h)
        if w_h.shape[1] < 4 or whole > rule.limits["of the whole"]:
            continue
        parts = [block(layer.cell, w_h, name) for name in layer.cell.blocks]
        if min(map(_off_orthogonal, parts)) < rule.limits["of a part"]:
            continue
        values = {n: np.linalg.svd(p, compute_uv=False) for n, p in zip(layer.cell.blocks, parts)}
        middle = float(np.median(np.concatenate(list(values.values()))))
        yield rule.finding(
            layer.name,
            f"w_h {list(w_h.shape)} has orthonormal columns as a whole (up to a factor of "
            f"{np.linalg.norm(w_h) / np.sqrt(w_h.shape[1]):.3g}); the singular values of its "
            f"{len(parts)} gates' parts are {middle:.2g} in the middle.",
            {"singular value": middle, "parts": float(len(parts))},
            picture=Picture(
                "lines",
                f"Singular values of the recurrent weights of {layer.name}",
                "number, largest first",
                "singular value",
                values,
            ),
        )


@rule(
    "HS403",
    "recurrence-small",
    Severity.WARNING,
    asks="Do the recurrent weights let the old state into the new one?",
    because="With recurrent weights near 0 the layer sees each step on its own. In a plain cell "
    "nothing is carried at all and the gradient of a step earlier is as small as the weights; a "
    "gated cell keeps a memory that it cannot react to.",
    remedy="Draw the recurrent weights orthogonal (Cell.init's default).",
    limits={"singular value": 0.35, "singular value, gated": 0.05},
)
def recurrence_small(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The largest singular value over the blocks of w_h."""
    for layer in layers_of(seen.trace):
        if layer.lengths.max() < 2:
            continue
        sizes = _largest(layer)
        shut = max(sizes.values()) < rule.limits["singular value, gated"]
        if max(sizes.values()) < rule.limits["singular value"]:
            yield rule.finding(
                layer.name,
                "The largest singular value of its recurrent weights is "
                f"{max(sizes.values()):.2g}; 1 keeps a state's length.",
                sizes,
                severity=None if isinstance(layer.cell, Elman) or shut else Severity.NOTE,
            )


@rule(
    "HS404",
    "weights-of-one-sign",
    Severity.WARNING,
    asks="Are there recurrent weights of both signs?",
    because="Weights that are all above 0 (or all below) make one sum of the whole state, many "
    "times as strong as all that sets units apart: every unit is driven by it alike.",
    remedy="Draw weights around 0: Cell.init, torch's reset_parameters, or uniform from -a to a, "
    "not from 0 to a.",
    limits={"share": 0.98, "numbers": 64},
)
def one_sign(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of the recurrent weights that are on one side of 0."""
    asked = False
    for layer in layers_of(seen.trace):
        w_h = layer.params["w_h"]
        above, below = int((w_h > 0).sum()), int((w_h < 0).sum())
        if (
            max(above + below, w_h.size / 2) < rule.limits["numbers"]
            or above + below < w_h.size / 2
        ):
            continue
        asked = True
        share = max(above, below) / (above + below)
        if share >= rule.limits["share"]:
            yield rule.finding(
                layer.name,
                f"{share:.0%} of its {w_h.size:,} recurrent weights are "
                f"{'above' if above > below else 'below'} 0; their mean is {w_h.mean():.2g} and "
                f"their standard deviation {w_h.std():.2g}.",
                {"share": share, "mean": float(w_h.mean()), "deviation": float(w_h.std())},
            )
    if not asked:
        raise Skip("no layer has enough recurrent weights to tell")


@rule(
    "HS405",
    "drawn-too-wide",
    Severity.WARNING,
    asks="Were the recurrent weights drawn as small as their number asks for?",
    because="A unit sums H products of weights and states. Weights of standard deviation 1 make "
    "that sum sqrt(H) wide: it swamps the input, presses gates and units to their ends, and "
    "small differences grow from step to step.",
    remedy="Draw recurrent weights orthogonal (Cell.init's default), or with a standard deviation "
    "of 1/sqrt(H); torch.randn alone is far too wide.",
    limits={"deviation times sqrt(H)": 3.0},
)
def drawn_wide(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Standard deviation times sqrt(H) of recurrent weights that look as they were drawn."""
    for layer in layers_of(seen.trace):
        w_h = np.asarray(layer.params["w_h"], np.float64)
        gain = float(w_h.std() * np.sqrt(w_h.shape[1]))
        if gain >= rule.limits["deviation times sqrt(H)"] and drawn_at_random(w_h):
            yield rule.finding(
                layer.name,
                f"Its recurrent weights look drawn with a standard deviation of {w_h.std():.2g}, "
                f"{gain:.2g} times 1/sqrt(H) for H = {w_h.shape[1]}.",
                {"deviation": float(w_h.std()), "gain": gain},
            )


def _off_orthogonal(w: Floats) -> float:
    """Return how far w^T w is from a multiple of the identity, 0 for orthogonal columns."""
    gram = w.T @ w
    scale = np.trace(gram) / len(gram)
    if scale == 0:
        return 1.0
    return float(np.linalg.norm(gram / scale - np.eye(len(gram))) / np.sqrt(len(gram)))


def _largest(layer: LayerTrace) -> dict[str, float]:
    w_h = layer.params["w_h"]
    return {n: largest_singular(block(layer.cell, w_h, n)) for n in layer.cell.blocks}
