"""TransformerSpec: what a self-attention layer is, as data, and the state that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import SpecError, nearest

POSITIONS = ("rotary", "sinusoidal", "none")


class KVCache(NamedTuple):
    """What a block keeps of the steps so far: its state, which grows where a cell's does not.

    keys:   [B, S, H, E], each row's from the left, then zeros; rotated where positions are rotary
    values: [B, S, H, E], alike
    steps:  [B] int64, steps that a row has seen; it keeps so many, or the last ones of a window
    memory: a KVCache of the other sequence that the block reads, where it reads one
    """

    keys: Any
    values: Any
    steps: Any
    memory: KVCache | None = None


@dataclass(frozen=True)
class TransformerSpec:
    """Blocks of self-attention under the contract of a recurrent layer (Vaswani et al. 2017).

    Pre-norm: every part of a block reads LayerNorm(x) and adds to x; a LayerNorm ends the layer.
    Feed-forward: W2 gelu(W1 x + b1) + b2, gelu in its tanh form (Hendrycks, Gimpel 2016).

    input_size:   D; projected to `size` where the two differ
    size:         d, width of a step, of the output and of all heads together
    feedforward:  width inside the feed-forward part
    positions:    "rotary" (Su et al. 2021, eq. 34), "sinusoidal" (Vaswani et al. 2017, section 3.5)
                  or "none"
    causal:       a step sees itself and the steps before it; False: every step of its sequence
    window_steps: a causal step sees the last so many steps, itself among them; None = all
    memory_size:  width of another sequence that every block reads too, as a decoder reads the one
                  it translates; None = there is none

    Raises SpecError for sizes that do not fit together.
    """

    input_size: int
    size: int
    blocks: int
    heads: int
    feedforward: int
    positions: str = "rotary"
    causal: bool = True
    window_steps: int | None = None
    memory_size: int | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if (count := getattr(self, name)) is not None and count < 1:
                raise SpecError(
                    f"A transformer has {name} = {count}.",
                    "It is a number of at least 1.",
                    f"Give another {name}.",
                )
        pairs = 2 * self.heads
        if self.size % pairs:
            raise SpecError(
                f"A transformer has size {self.size} and {self.heads} heads.",
                "The size is an even number for each head, for positions turn pairs of features.",
                f"Take size {-(-self.size // pairs) * pairs}, or another number of heads.",
            )
        if self.positions not in POSITIONS:
            raise SpecError(
                f"There are no positions {self.positions!r}.",
                f"hiddenstate knows {', '.join(POSITIONS)}.",
                f"Choose one of them.{nearest(self.positions, POSITIONS)}",
            )
        for name in ("window_steps", "memory_size"):
            if getattr(self, name) is not None and not self.causal:
                raise SpecError(
                    f"A transformer has {name} {getattr(self, name)} and reads both directions.",
                    "A window bounds what a step sees of the past, and a memory is read by a "
                    "decoder; both are causal.",
                    f"Leave {name} out, or make it causal.",
                )

    @property
    def head_size(self) -> int:
        """E, the width of one head."""
        return self.size // self.heads

    @property
    def kept_steps(self) -> int | None:
        """The most steps that a row's cache holds; None = all there were."""
        return None if self.window_steps is None else self.window_steps - 1

    def state_bytes(self, steps: int, memory_steps: int = 0) -> int:
        """Return the bytes of float32 state kept for one live sequence after so many steps."""
        kept = steps if self.kept_steps is None else min(steps, self.kept_steps)
        counts = 1 if self.memory_size is None else 2
        return self.blocks * (8 * self.size * (kept + memory_steps) + 8 * counts)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by its name; a linear map's is [outputs, inputs]."""
        found: dict[str, tuple[int, ...]] = {}

        def norm(name: str) -> None:
            found.update({f"{name}.weight": (self.size,), f"{name}.bias": (self.size,)})

        def linear(name: str, outputs: int, inputs: int) -> None:
            found.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

        if self.input_size != self.size:
            linear("project", self.size, self.input_size)
        for block in (f"blocks.{index}" for index in range(self.blocks)):
            norm(f"{block}.norm")
            linear(f"{block}.query_key_value", 3 * self.size, self.size)
            linear(f"{block}.out", self.size, self.size)
            if self.memory_size is not None:
                norm(f"{block}.memory_norm")
                linear(f"{block}.memory_query", self.size, self.size)
                linear(f"{block}.memory_key_value", 2 * self.size, self.memory_size)
                linear(f"{block}.memory_out", self.size, self.size)
            norm(f"{block}.feedforward_norm")
            linear(f"{block}.widen", self.feedforward, self.size)
            linear(f"{block}.narrow", self.size, self.feedforward)
        norm("norm")
        return found

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(prod(shape) for shape in self.shapes().values())

    def to_json(self) -> dict[str, Any]:
        """Return the layer as JSON values, under the key "transformer"."""
        return {"transformer": asdict(self)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TransformerSpec:
        """Rebuild a layer; raises KeyError, TypeError or ValueError for anything else."""
        given = value["transformer"]
        sizes: dict[str, Any] = {name: _count(given[name]) for name in _COUNTS}
        return TransformerSpec(
            positions=str(given["positions"]), causal=bool(given["causal"]), **sizes
        )


_COUNTS = (
    "input_size",
    "size",
    "blocks",
    "heads",
    "feedforward",
    "window_steps",
    "memory_size",
)


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def rates(width: int) -> NDArray[np.float64]:
    """Return the radians a step of the waves that tell positions, [width / 2].

    Wave k turns by 10000^(-2k / width) (Vaswani et al. 2017, section 3.5).
    """
    turns: NDArray[np.float64] = 10_000.0 ** (-np.arange(0, width, 2) / width)
    return turns
