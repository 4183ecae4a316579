"""Whether weights look as they were drawn: independent numbers of one distribution.

Training leaves marks that a draw has not: rows and columns of unequal size, a few large singular
values, heavy tails. Each is held against what so many independent numbers would have.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.tracing.record import Floats

LEAST, LEAST_OF_TABLE = 100, 32
ROWS = 2048
SURE = 5.0
"""Standard errors."""


def drawn_at_random(weights: Floats) -> bool:
    """Return whether a matrix [M, N] looks drawn, from a normal or uniform distribution.

    >>> rng = np.random.default_rng(0)
    >>> drawn_at_random(rng.normal(size=(40, 20))), drawn_at_random(rng.uniform(size=(40, 20)))
    (True, True)
    >>> drawn_at_random(np.eye(20) + 0.1 * rng.normal(size=(20, 20)))
    False
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 2 or w.size < LEAST or min(w.shape) < 2 or not np.isfinite(w).all():
        return False
    spread = float(w.std())
    if spread == 0.0:
        return False
    z = (w - w.mean()) / spread
    tails, error = float((z**4).mean()), SURE * np.sqrt(24 / z.size)
    uniform = abs(tails - 1.8) < error and float(np.abs(z).max()) < 1.9
    if not uniform and abs(tails - 3.0) > error:
        return False
    for axis in (0, 1):
        sizes = np.square(z).mean(axis=axis)
        expected = (tails - 1) / z.shape[axis]
        if sizes.var() > expected * (1 + SURE * np.sqrt(2 / len(sizes))):
            return False
    # The largest of independent numbers: Marchenko, Pastur 1967.
    edge = np.sqrt(z.shape[0]) + np.sqrt(z.shape[1])
    return bool(np.linalg.norm(z, 2) < 1.15 * edge)


def thinned(weights: Tensor) -> Floats:
    """Return at most ROWS rows of a matrix, evenly spread."""
    rows = torch.linspace(0, len(weights) - 1, min(len(weights), ROWS)).long()
    return np.asarray(weights.detach()[rows.to(weights.device)].cpu().double().numpy())


def is_default(table: nn.Embedding | nn.EmbeddingBag) -> bool:
    """Return whether an embedding holds standard normal numbers, as torch draws them."""
    padding = -1 if table.padding_idx is None else table.padding_idx
    w = thinned(table.weight[torch.arange(len(table.weight)) != padding])
    if w.size < LEAST_OF_TABLE or not np.isfinite(w).all():
        return False
    error, tails = SURE / np.sqrt(w.size), float((((w - w.mean()) / (w.std() or 1)) ** 4).mean())
    near = abs(w.mean()) < error and abs(w.std() - 1) < error / np.sqrt(2)
    return bool(near and abs(tails - 3) < error * np.sqrt(24))
