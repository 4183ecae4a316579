"""States as both of Flax's faces carry them, and the precision in which JAX computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import jax
import numpy as np

from hiddenstate.interop.conventions import Convention
from hiddenstate.interop.layout import from_order, in_order
from hiddenstate.interop.weights import Array, States, Weights

Rows: TypeAlias = Sequence[Sequence[Convention]]
"""The convention of each layer and direction."""


@contextmanager
def jax_precision(dtype: Any) -> Iterator[None]:
    """Compute in full precision of this type within the block.

    JAX computes in float32, and on some processors in less, unless it is told otherwise.
    """
    wide = np.dtype(dtype) == np.float64
    with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
        yield


def spelt_out(
    weights: Weights, x: Array, lengths: Array | None, states: States | None
) -> tuple[Array | None, States | None]:
    """Return lengths and states, both or neither, so that JAX compiles three forms and not six."""
    if lengths is None and states is None and x.shape[1] > 1:
        return None, None
    full = np.full(x.shape[0], x.shape[1])
    return (
        full if lengths is None else lengths,
        weights.astype(x.dtype).zero_states(x.shape[0]) if states is None else states,
    )


def to_carries(states: States, rows: Rows) -> list[Any]:
    """Return a layer's carry for each layer; in both directions it is a pair."""
    layers = []
    for ways, conventions in zip(states, rows, strict=True):
        each = [in_order(state, row) for state, row in zip(ways, conventions, strict=True)]
        carries = tuple(carry if len(carry) > 1 else carry[0] for carry in each)
        layers.append(carries if len(carries) > 1 else carries[0])
    return layers


def from_carries(carries: Sequence[Any], rows: Rows) -> States:
    """Return our States from each layer's carry."""
    layers = []
    for carry, conventions in zip(carries, rows, strict=True):
        each = carry if len(conventions) > 1 else [carry]
        layers.append(
            tuple(
                from_order(one if isinstance(one, tuple) else (one,), row)
                for one, row in zip(each, conventions, strict=True)
            )
        )
    return tuple(layers)
