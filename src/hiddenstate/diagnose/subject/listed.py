"""A module that takes its rows as a list of arrays of unequal lengths, called with one array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

Batch = tuple[Any, ...] | Mapping[str, Any]


class Listed(nn.Module):
    """Takes rows [B, T, ...] and lengths [B], and gives `module` the list of rows [T_i, ...]."""

    def __init__(self, module: nn.Module, name: str | None) -> None:
        super().__init__()
        self.module, self._name = module, name

    def forward(self, rows: Tensor, lengths: Tensor) -> Any:
        """Return what the module gives for the rows without their padding."""
        each = [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
        return self.module(each) if self._name is None else self.module(**{self._name: each})


def as_arrays(module: nn.Module, batch: Batch) -> tuple[nn.Module, Batch]:
    """Return module and batch, with one padded array where the only argument is a list of rows."""
    values = list(batch.values()) if isinstance(batch, Mapping) else list(batch)
    rows = values[0] if len(values) == 1 else None
    if not isinstance(rows, list) or len(rows) < 2 or not all(map(_is_row, rows)):
        return module, batch
    if len({each.shape[1:] for each in rows}) > 1 or len({len(each) for each in rows}) < 2:
        return module, batch
    name = next(iter(batch)) if isinstance(batch, Mapping) else None
    lengths = torch.tensor([len(each) for each in rows])
    return Listed(module, name), (pad_sequence(rows, batch_first=True), lengths)


def _is_row(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim in (1, 2)
