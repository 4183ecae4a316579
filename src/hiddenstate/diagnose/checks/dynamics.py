"""What the recurrence does over many steps: HS411, HS412 and HS413."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.cells import Elman
from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.dynamics import fixed_points, spectrum
from hiddenstate.diagnose.measures.memory import memory
from hiddenstate.diagnose.measures.sampled import layers_of, sample

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS411",
    "transient-growth",
    Severity.NOTE,
    asks="Do spectral radius and singular values of the recurrent weights agree on growth?",
    because="The spectral radius tells what W^k does for large k, singular values what it does in "
    "a few steps. For a non-normal matrix they part: with a radius under 1 a signal may grow "
    "manyfold before it fades, and so does its gradient. 'The radius is under 1, so nothing "
    "explodes' does not hold then.",
    remedy="Draw the recurrent weights orthogonal, where radius and singular values are all 1; in "
    "training clip the gradient by its norm.",
    limits={"growth": 3.0},
)
def transient(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The largest singular value of W^k over k, of plain cells whose W has radius under 1."""
    layers = [each for each in layers_of(seen.trace) if isinstance(each.cell, Elman)]
    if not layers:
        raise Skip("no layer is a plain cell, whose recurrent weights act alone")
    for layer in layers:
        found = spectrum(layer.params["w_h"])
        if found.radius >= 1 or found.growth < rule.limits["growth"]:
            continue
        at = int(np.argmax(found.powers))
        yield rule.finding(
            layer.name,
            f"The spectral radius of w_h is {found.radius:.3g}, so everything fades in the end; "
            f"its largest singular value is {found.norm:.3g}, and over {at} steps a signal can "
            f"grow {found.growth:.3g}-fold first (squashing apart).",
            {"radius": found.radius, "norm": found.norm, "growth": found.growth, "steps": at},
            picture=Picture(
                "lines",
                f"Powers of the recurrent weights of {layer.name}",
                "k",
                "largest singular value of W^k",
                {"W^k": found.powers, "radius^k": found.radius ** np.arange(len(found.powers))},
                log_y=True,
                aside=("radius^k",),
            ),
        )


@rule(
    "HS412",
    "chaotic",
    Severity.WARNING,
    asks="Do two histories that differ a little stay near each other?",
    because="The largest Lyapunov exponent along the data is above 0: the smallest difference "
    "grows until it fills the whole range of the state. What the state holds is then the last "
    "rounding error as much as the history, and gradients through time explode.",
    remedy="Make the recurrent weights smaller: draw them orthogonal (largest singular value 1, "
    "Cell.init's default), and clip the gradient by its norm in training.",
    limits={"exponent": 0.1, "growth": 100.0, "steps": 20},
)
def chaotic(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Growth of differences a step, where the states themselves stay in bounds."""
    layers = [each for each in layers_of(seen.trace) if each.lengths.max() >= rule.limits["steps"]]
    if not layers:
        raise Skip(f"no row has {rule.limits['steps']:.0f} steps")
    for layer in layers:
        found = memory(layer)
        growth = float(found.typical[-1])
        if found.exponent < rule.limits["exponent"] or not growth >= rule.limits["growth"]:
            continue
        sizes = np.sqrt(np.square(sample(layer, layer.states.h)).mean())
        if sizes > 100:
            continue
        yield rule.finding(
            layer.name,
            f"The largest Lyapunov exponent along the rows is {found.exponent:.2f} a step: a "
            f"difference doubles every {np.log(2) / found.exponent:.2g} steps, and grows "
            f"{growth:.2g}-fold over {found.lags[-1]} of them.",
            {"exponent": found.exponent, "growth": growth},
            picture=Picture(
                "lines",
                f"Singular values of Jacobian products in {layer.name}",
                "lag (steps)",
                "singular value, geometric mean over rows",
                {
                    f"number {k + 1}": found.singular[:, k]
                    for k in range(min(4, found.singular.shape[1]))
                },
                x=found.lags.astype(np.float64),
                log_y=True,
            ),
        )


@rule(
    "HS413",
    "latched",
    Severity.NOTE,
    asks="Under one and the same input, do all histories end in one state?",
    because="With several resting states the layer can hold a fact for any number of steps: which "
    "one it rests in depends on what was read long ago. Near such a state gradients vanish though "
    "the memory is there, and a state that was latched wrongly is not left again.",
    remedy="Nothing where the task has facts to hold. Where old events must not decide for ever "
    "(streams without an end), reset the state at the boundaries of the data, or start from "
    "smaller recurrent weights.",
    limits={"share of states": 0.1, "width": 256},
)
def latched(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Where states of the data come to rest under the mean input."""
    layers = [
        each
        for each in layers_of(seen.trace)
        if sum(each.cell.state_shapes().values()) <= rule.limits["width"]
    ]
    if not layers:
        raise Skip(f"every layer has more than {rule.limits['width']:.0f} numbers in its state")
    for layer in layers:
        found = fixed_points(layer, starts=12, steps=200, repelling=False)
        resting = found.came >= rule.limits["share of states"]
        if resting.sum() < 2:
            continue
        shares = ", ".join(f"{share:.0%}" for share in found.came[resting])
        radii = found.radii[resting]
        values = found.eigenvalues[resting]
        yield rule.finding(
            layer.name,
            f"With the mean input held, states of the data come to rest in {int(resting.sum())} "
            f"different places ({shares} of them); the slowest direction there shrinks to "
            f"{radii.max():.2g} of itself a step.",
            {"resting": float(resting.sum()), "radius": float(radii.max())},
            picture=Picture(
                "scatter",
                f"Eigenvalues where {layer.name} rests",
                "real part",
                "imaginary part",
                {
                    f"place {k + 1}": np.stack([each.real, each.imag], axis=1)
                    for k, each in enumerate(values)
                },
                circle=True,
            ),
        )
