"""The layer under test: one set of numbers that torch, hiddenstate and every peer compute with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.nn import Recurrent, from_torch

MODULES = {"GRU": torch.nn.GRU, "Elman": torch.nn.RNN, "LSTM": torch.nn.LSTM}
TORCH_CELLS = {"GRU": torch.nn.GRUCell, "Elman": torch.nn.RNNCell, "LSTM": torch.nn.LSTMCell}
CELLS = {"GRU": GRU, "Elman": Elman, "LSTM": LSTM}
GATES = {"GRU": 3, "Elman": 1, "LSTM": 4}
NAMES = {"w_x": "weight_ih", "w_h": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh"}


@dataclass(frozen=True)
class Subject:
    """A cell of one of the KINDS over x [B, T, D] with hidden size H."""

    kind: str
    batch: int
    time: int
    input_size: int
    hidden_size: int

    def __str__(self) -> str:
        """Return the kind and BxTxDxH."""
        sizes = (self.batch, self.time, self.input_size, self.hidden_size)
        return f"{self.kind} {'x'.join(map(str, sizes))}"

    @cached_property
    def module(self) -> Any:
        """torch's layer, batch first; the numbers of all others are copied from it."""
        torch.manual_seed(0)
        return MODULES[self.kind](self.input_size, self.hidden_size, batch_first=True)

    def again(self, batch_first: bool = True, wide: bool = False) -> Any:
        """Return another torch layer with the same numbers, in float64 if wide."""
        module = copy.deepcopy(self.module)
        module.batch_first = batch_first
        return module.double() if wide else module

    @cached_property
    def layer(self) -> Recurrent:
        """hiddenstate's layer."""
        layer = from_torch(self.module).layers[0]
        assert isinstance(layer, Recurrent)
        return layer

    @cached_property
    def cell(self) -> Cell:
        """The specification that the layer runs, with torch's two biases."""
        return CELLS[self.kind](self.input_size, self.hidden_size, 2)

    @cached_property
    def params(self) -> dict[str, Any]:
        """The numbers by the cell's names, float32."""
        return {
            name: getattr(self.module, f"{torchs}_l0").detach().numpy().copy()
            for name, torchs in NAMES.items()
        }

    @cached_property
    def x(self) -> Any:
        """Input [B, T, D]."""
        return self._draw(self.input_size, 1)

    @cached_property
    def output_gradient(self) -> Any:
        """What the backward pass starts from [B, T, H]."""
        return self._draw(self.hidden_size, 2)

    def flops(self, passes: int) -> int:
        """Floating-point operations in matrix products; 1 pass: forward, 3: and backward."""
        rows = GATES[self.kind] * self.hidden_size
        columns = self.input_size + self.hidden_size
        return passes * 2 * self.batch * self.time * rows * columns

    def _draw(self, width: int, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((self.batch, self.time, width), dtype=np.float32)
