"""First values of parameters: blocks drawn from a NumPy generator, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Draw a matrix with orthonormal columns (rows if it is wide), uniform over all such.

    Source: Saxe, McClelland, Ganguli 2013, arXiv:1312.6120; the sign of the QR's diagonal is
    fixed so that the draw is uniform (Mezzadri 2006).
    """
    tall, short = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr(rng.standard_normal((tall, short)))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q if rows >= columns else q.T)


def glorot_uniform(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Draw from U(-a, a) with a = sqrt(6 / (rows + columns)) (Glorot, Bengio 2010, eq. 16)."""
    bound = np.sqrt(6.0 / (rows + columns))
    return rng.uniform(-bound, bound, (rows, columns))


def chrono(rng: np.random.Generator, width: int, longest_lag_steps: int) -> Floats:
    """Draw log(U(1, T - 1)): biases that keep a state for times up to T steps.

    Source: Tallec, Ollivier 2018, arXiv:1804.11188, section 3.
    """
    return np.log(rng.uniform(1.0, longest_lag_steps - 1.0, width))
