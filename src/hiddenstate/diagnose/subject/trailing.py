"""Padding that nobody told of: rows that end at different steps in one symbol, or in zeros."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hiddenstate.diagnose.subject.layout import Lengths


def ends_of(x: Tensor, symbols: Iterable[int] = ()) -> Lengths | None:
    """Return where the rows of x [B, T, ...] end, [B]; None where they do not seem padded.

    symbols: what is known to be padding; without any, the smallest symbol

    A value counts as padding only if it stands nowhere but at the ends, in at least two rows, for
    at least two steps each, and the rows end at different steps.

    >>> ends_of(torch.tensor([[5, 7, 8, 6], [4, 9, 0, 0], [6, 0, 0, 0]])).tolist()
    [4, 2, 1]
    """
    if x.shape[0] < 2 or x.shape[1] < 2 or x.dtype == torch.bool:
        return None
    flat = x.flatten(2) if x.ndim > 2 else x.unsqueeze(-1)
    known = [] if x.is_floating_point() else list(symbols)
    if x.is_floating_point():
        padding = torch.zeros_like(flat[0, 0])
    elif known:
        padding = torch.full_like(flat[0, 0], known[0])
    else:
        # Not any symbol: rows that reach a last stage and stay there are not padded.
        padding = flat.flatten(0, 1).amin(0)
    real = (flat != padding).any(-1)
    time = x.shape[1]
    steps = torch.arange(1, time + 1, device=x.device)
    ends = (real * steps).amax(1)
    gaps = bool((real.sum(1) != ends).any())
    rows = int((time - ends >= 2).sum())
    found: Lengths = ends.cpu().numpy()
    if (gaps and not known) or rows < 2 or found.min() == found.max():
        return None
    return found
