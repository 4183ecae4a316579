"""Layers on top of each other: HS208."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.sampled import layers_of
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

LEAST_LAYERS = 4
MANY_LAYERS = 6
"""From so many on it is no matter of taste."""


@rule(
    "HS208",
    "depth-fades",
    Severity.WARNING,
    asks="Does what tells the rows apart get through all layers?",
    because="Every plain layer on the way squeezes what it reads. After many of them all rows look "
    "alike at the top, and the gradient that reaches the bottom has been squeezed as often.",
    remedy="Add each layer's input to its output (hiddenstate.nn.Stack(residual=True)), with layer "
    "norm between, use gated cells, or use fewer layers.",
    limits={"share": 0.1, "layers": MANY_LAYERS},
)
def depth_fades(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The spread over rows of h at their last steps, layer by layer, beside that of the lowest."""
    chains = [each for each in _chains(layers_of(seen.trace)) if len(each) >= LEAST_LAYERS]
    if not chains:
        raise Skip(f"no {LEAST_LAYERS} layers read each other's states alone")
    for chain in chains:
        spreads = np.array([_spread(each) for each in chain])
        if not spreads[0] > 0:
            continue
        share = float(spreads[-1] / spreads[0])
        if share >= rule.limits["share"]:
            continue
        yield rule.finding(
            chain[-1].name,
            f"The states of different rows differ by {spreads[0]:.2g} in {chain[0].name} and by "
            f"{spreads[-1]:.2g} in {chain[-1].name}, {len(chain)} layers up.",
            {"share": share, "layers": float(len(chain))},
            # Three to five layers as they are drawn do this, and train all the same.
            severity=None if len(chain) >= rule.limits["layers"] else Severity.NOTE,
            picture=Picture(
                "lines",
                "What tells rows apart",
                "layer, lowest first",
                "standard deviation of h over rows",
                {"h": spreads},
                log_y=True,
            ),
        )


def _chains(layers: list[LayerTrace]) -> list[list[LayerTrace]]:
    """Return layers of which each reads nothing but the states of the one before."""
    chains: list[list[LayerTrace]] = []
    for layer in layers:
        for chain in chains:
            below = np.where(chain[-1].valid[..., None], chain[-1].states.h, 0.0)
            if layer.x.shape == below.shape and np.allclose(layer.x, below, rtol=1e-4, atol=1e-6):
                chain.append(layer)
                break
        else:
            chains.append([layer])
    return chains


def _spread(layer: LayerTrace) -> float:
    rows = np.flatnonzero(layer.lengths)
    last: Floats = layer.turned().states.h[rows, layer.lengths[rows] - 1]
    return float(np.sqrt(last.var(axis=0).mean()))
