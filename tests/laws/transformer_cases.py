"""Transformers for the laws: one for each way through the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiddenstate.artifact.transformer import TransformerSpec
from hiddenstate.nn import map_state
from hiddenstate.nn.transformer import Transformer
from hiddenstate.runtime.transformer import Transformer as Fast
from hiddenstate.runtime.weights import Weights

B, T, D, M = 4, 9, 3, 6
LENGTHS = torch.tensor([9, 0, 4, 1])
MEMORY_LENGTHS = torch.tensor([6, 2, 0, 1])


def spec_of(**changes: Any) -> TransformerSpec:
    return TransformerSpec(
        **{"input_size": D, "size": 8, "blocks": 2, "heads": 2, "feedforward": 12, **changes}
    )


CAUSAL = {
    "rotary": spec_of(),
    "sinusoidal": spec_of(positions="sinusoidal"),
    "no positions": spec_of(positions="none", heads=1),
    "as wide as x": spec_of(size=4, input_size=4, blocks=1),
    "window": spec_of(window_steps=3),
    "window of one": spec_of(window_steps=1, positions="sinusoidal"),
    "window unfilled": spec_of(window_steps=50, blocks=1),
    "decoder": spec_of(memory_size=5),
    "decoder with a window": spec_of(memory_size=8, window_steps=2, positions="sinusoidal"),
}
ALL = {
    **CAUSAL,
    "both directions": spec_of(causal=False),
    "both, sinusoidal": spec_of(causal=False, positions="sinusoidal"),
}


@dataclass(frozen=True)
class Case:
    """A layer with weights at random, what it reads, and the same in NumPy."""

    layer: Transformer
    x: Tensor
    memory: Tensor | None

    @property
    def first(self) -> Any:
        """The state to start from."""
        if self.memory is None:
            return None
        return self.layer.initial_state(self.memory, MEMORY_LENGTHS)

    def fast(self) -> Fast:
        named = {f"at.{name}": value for name, value in self.layer.state_dict().items()}
        weights = Weights({name: value.numpy() for name, value in named.items()})
        fast = Fast(self.layer.spec, weights, "at.")
        weights.require_all_taken()
        return fast

    def fast_first(self, fast: Fast) -> Any:
        if self.memory is None:
            return None
        padded = torch.arange(M) >= MEMORY_LENGTHS[:, None]
        memory = self.memory.masked_fill(padded[..., None], torch.nan).numpy()
        return fast.initial_state(B, memory, MEMORY_LENGTHS.numpy())


def case_of(spec: TransformerSpec) -> Case:
    torch.manual_seed(0)
    layer = Transformer(spec, dropout=0.2).eval()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    memory = None if spec.memory_size is None else torch.randn(B, M, spec.memory_size)
    return Case(layer, torch.randn(B, T, spec.input_size), memory)


def flat(state: Any) -> list[Any]:
    arrays: list[Any] = []
    map_state(lambda array: arrays.append(array) or array, state)
    return arrays


def near(fast: np.ndarray, reference: np.ndarray, truth: np.ndarray) -> None:
    """The law of exactness: at most twice the reference's own error, and a few ulp."""
    assert fast.dtype == reference.dtype
    if truth.size:
        ulp = np.finfo(np.float32).eps * np.abs(truth).max()
        assert np.abs(fast - truth).max() <= 2 * np.abs(reference - truth).max() + 8 * ulp
