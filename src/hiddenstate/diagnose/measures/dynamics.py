"""What the recurrent weights alone can do: spectra, transient growth, fixed points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import NUMPY
from hiddenstate.diagnose.measures.linear import Steps
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

POWERS = 64
WIDE = 128
"""Matrices up to this width are raised to powers whole, wider ones on 16 directions."""


class Spectrum(NamedTuple):
    """Two measures of a square matrix W, and what lies between them.

    radius:   the largest |eigenvalue|: what W^k does for large k
    norm:     the largest singular value: the most that W does in one step
    powers:   [K] largest singular value of W^k, k = 0, 1, ...; from WIDE on a lower bound
    """

    radius: float
    norm: float
    powers: Floats

    @property
    def growth(self) -> float:
        """The most by which any signal grows before it fades, or within the powers taken."""
        return float(self.powers.max())


def spectrum(w: Floats) -> Spectrum:
    """Measure a matrix [H, H].

    For a non-normal one the two measures part: [[.9, 5], [0, .9]] has spectral radius .9, and
    grows a signal 19-fold before it fades (SPEC 6.2; Trefethen, Embree 2005, chapter 14).

    >>> found = spectrum(np.array([[0.9, 5.0], [0.0, 0.9]]))
    >>> round(found.radius, 3), round(found.norm, 2), round(found.growth, 1)
    (0.9, 5.16, 19.4)
    """
    w = np.asarray(w, np.float64)
    product, scale = np.eye(len(w)), 0.0
    if len(w) > WIDE:
        drawn = np.random.default_rng(0).standard_normal((len(w), 16))
        product = np.linalg.qr(drawn)[0]
    sizes = [1.0]
    for _ in range(POWERS):
        product = w @ product
        size = float(np.linalg.norm(product, 2))
        if size == 0.0:
            sizes.append(0.0)
            break
        product, scale = product / size, min(scale + float(np.log(size)), 300.0)
        sizes.append(float(np.exp(scale)))
    return Spectrum(float(np.abs(np.linalg.eigvals(w)).max()), largest_singular(w), np.array(sizes))


def largest_singular(w: Floats) -> float:
    """Return the largest singular value of w [M, N]; by power iteration where that is quicker."""
    w = np.asarray(w, np.float64)
    if max(w.shape) <= WIDE:
        return float(np.linalg.svd(w, compute_uv=False)[0])
    v = np.random.default_rng(0).standard_normal((w.shape[1], 4))
    for _ in range(12):
        v = np.linalg.qr(w.T @ (w @ v))[0]
    return float(np.linalg.norm(w @ v, 2))


@dataclass(frozen=True)
class FixedPoints:
    """States that one held input leaves as they are.

    points:      [N, S], packed as `Cell.pack`; stable ones first
    eigenvalues: [N, S] complex, of the Jacobian there, largest first
    came:        share of the states from the data that ended in each, [N]; 0 for unstable ones
    lost:        share of them that ended in none (a cycle, chaos, growth, or slower than was run)
    """

    points: Floats
    eigenvalues: NDArray[np.complexfloating]
    came: Floats
    lost: float

    @property
    def radii(self) -> Floats:
        """[N] largest |eigenvalue| of each: under 1 it is stable."""
        return np.asarray(np.abs(self.eigenvalues).max(axis=1, initial=0.0))

    @property
    def stable(self) -> int:
        """How many attract their neighbourhood."""
        return int((self.radii < 1).sum())


def fixed_points(
    layer: LayerTrace,
    x: Floats | None = None,
    *,
    starts: int = 16,
    steps: int = 500,
    repelling: bool = True,
) -> FixedPoints:
    """Find fixed points of a layer's cell under one input x [D], held (None: the data's mean).

    States of the data run on for `steps` steps: where they come to rest is stable. Then Newton's
    method from the same states finds points that repel as well, unless those are not wanted.
    Source: Sussillo, Barak 2013, 10.1162/NECO_a_00409.
    """
    read = layer.turned()
    ran = Steps.of(read)
    cell = read.cell
    params = {name: np.asarray(value, np.float64) for name, value in read.params.items()}
    rows, t = np.nonzero(read.valid)
    pick = np.linspace(0, len(rows) - 1, min(len(rows), starts)).astype(np.int64)
    held = read.x[read.valid].mean(axis=0, dtype=np.float64) if x is None else np.asarray(x, float)
    begun = cell.pack(NUMPY, ran.after(rows[pick], t[pick])).astype(np.float64)

    def onward(flat: Floats) -> Floats:
        x_t = np.broadcast_to(held, (len(flat), len(held)))
        state, _ = cell.step(NUMPY, params, cell.project(NUMPY, params, x_t), cell.unpack(flat))
        return np.asarray(cell.pack(NUMPY, state))

    def slopes(flat: Floats) -> Floats:
        x_t = np.broadcast_to(held, (len(flat), len(held)))
        return np.asarray(cell.jacobian(params, x_t, cell.unpack(flat)))

    with np.errstate(over="ignore", invalid="ignore"):
        ended = begun
        for _ in range(steps):
            ended = onward(ended)
        rested = np.isfinite(ended).all(axis=1)
        rested &= np.abs(onward(ended) - ended).max(axis=1) <= 1e-6 * (1 + np.abs(ended).max(1))
        found = ended[rested]
        if repelling:
            found = _newton(onward, slopes, np.concatenate([found, begun]))
    points = _distinct(found)
    if not len(points):
        nothing = np.zeros((0, begun.shape[1]))
        return FixedPoints(nothing, nothing.astype(complex), np.zeros(0), 1.0)
    values = np.linalg.eigvals(slopes(points)).astype(complex)
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1), axis=1)
    order = np.argsort(np.abs(values[:, 0]), kind="stable")
    points, values = points[order], values[order]
    came = np.zeros(len(points))
    for state in ended[rested]:
        gaps = np.abs(points - state).max(axis=1)
        came[np.argmin(gaps)] += gaps.min() <= 1e-3 * (1 + np.abs(state).max())
    return FixedPoints(points, values, came / len(begun), 1.0 - float(came.sum()) / len(begun))


Map: TypeAlias = Callable[[Floats], Floats]


def _newton(onward: Map, slopes: Map, flat: Floats) -> Floats:
    """Return those [M, S] from which Newton's method on onward(s) - s converges."""
    identity = np.eye(flat.shape[1])
    for _ in range(30):
        matrix = slopes(flat) - identity
        off = onward(flat) - flat
        usable = np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(off).all(axis=1)
        flat, matrix, off = flat[usable], matrix[usable], off[usable]
        # A little damping keeps a singular matrix (a line of fixed points) from throwing far.
        gram = matrix.swapaxes(1, 2) @ matrix + 1e-10 * identity
        move = -np.linalg.solve(gram, matrix.swapaxes(1, 2) @ off[..., None])[..., 0]
        size = np.abs(move).max(axis=1, keepdims=True, initial=0.0)
        flat = flat + move * np.minimum(1.0, 1.0 / np.maximum(size, 1e-300))
    near = np.abs(onward(flat) - flat).max(axis=1, initial=0.0)
    kept: Floats = flat[near <= 1e-8 * (1 + np.abs(flat).max(axis=1, initial=0.0))]
    return kept


def _distinct(points: Floats) -> Floats:
    """Return the points [N, S] without those that lie within 0.001 of an earlier one."""
    kept: list[Floats] = []
    for point in points:
        gaps = [np.abs(point - other).max() / (1 + np.abs(other).max()) for other in kept]
        if min(gaps, default=1.0) > 1e-3:
            kept.append(point)
    return np.array(kept).reshape(len(kept), points.shape[1])
