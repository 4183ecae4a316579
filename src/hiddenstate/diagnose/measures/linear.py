"""One step of a cell as a linear map: cotangents are pulled back through it, without Jacobians.

    v_{t-1} = (d state_t / d state_{t-1})^T v_t

in NumPy, from the step's gates: one product with w_h for all probes. `Cell.jacobian` is the same
map as a matrix, H times as much work; it stands in for cells that have no reverse step here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import NUMPY
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace
from hiddenstate.kernels.reverse import is_written, step_back

Ints: TypeAlias = NDArray[np.int64]

WIDE = 64
"""States up to this width are followed in float64, wider ones in float32."""


@dataclass(frozen=True)
class Steps:
    """A traced layer, step by step, in reading order.

    layer:  a LayerTrace with reverse=False (`LayerTrace.turned`)
    params: its parameters in the type that is computed in
    held:   share of its old value that each array of the state keeps beside the cell's own step:
            zoneout's expectation, found from the trace; 0 where there is none
    """

    layer: LayerTrace
    params: dict[str, Floats]
    held: tuple[float, ...]

    @staticmethod
    def of(layer: LayerTrace) -> Steps:
        """Prepare a layer."""
        widths = layer.cell.state_shapes().values()
        kind = np.float64 if sum(widths) <= WIDE else np.float32
        params: dict[str, Floats] = {
            name: np.asarray(value, kind) for name, value in layer.params.items()
        }
        bare = Steps(layer, params, (0.0,) * len(widths))
        return Steps(layer, params, bare._found_held())

    @property
    def width(self) -> int:
        """S, the sum of the state's widths."""
        return sum(self.layer.cell.state_shapes().values())

    @property
    def kind(self) -> Any:
        """The type that is computed in."""
        return self.params["w_h"].dtype

    def before(self, rows: Ints, t: Ints) -> Any:
        """Return the State [A, width] before step t of each row, both [A]."""
        started = (t > 0)[:, None]
        pairs = zip(self.layer.first, self.layer.states)
        return self.layer.cell.State(
            *(
                np.where(started, after[rows, t - 1], first[rows]).astype(self.kind)
                for first, after in pairs
            )
        )

    def after(self, rows: Ints, t: Ints) -> Any:
        """Return the State [A, width] after step t of each row."""
        return self.layer.cell.State(*(s[rows, t].astype(self.kind) for s in self.layer.states))

    def step(self, rows: Ints, t: Ints, state: Any) -> Any:
        """Take step t of each row from another State [A, width]."""
        new, _ = self._bare(rows, t, state)
        return type(state)(*(k * a + (1 - k) * b for k, a, b in zip(self.held, state, new)))

    def pull(self, rows: Ints, t: Ints, v: Floats) -> Floats:
        """Pull cotangents [A, P, S] of the states after step t back to those before it."""
        cell, old = self.layer.cell, self.before(rows, t)
        new, gates = self._bare(rows, t, old)
        parts = cell.unpack(v)
        through = cell.State(*((1 - k) * part for k, part in zip(self.held, parts)))
        if is_written(cell):
            before, opened, after = (
                type(s)(*(each[:, None] for each in s)) for s in (old, gates, new)
            )
            back = step_back(cell, self.params, before, opened, after, through)
            pulled = cell.pack(NUMPY, back.old)
        else:
            x_t = self.layer.x[rows, t].astype(self.kind)
            pulled = cell.pack(NUMPY, through) @ cell.jacobian(self.params, x_t, old)
        if not any(self.held):
            return np.asarray(pulled)
        kept = cell.State(*(k * part for k, part in zip(self.held, parts)))
        return np.asarray(pulled + cell.pack(NUMPY, kept))

    def _bare(self, rows: Ints, t: Ints, state: Any) -> tuple[Any, Any]:
        projected = self.layer.projected[rows, t].astype(self.kind)
        flat = projected.reshape(len(rows), int(np.prod(projected.shape[1:])))
        ran: tuple[Any, Any] = self.layer.cell.step(NUMPY, self.params, flat, state)
        return ran

    def _found_held(self) -> tuple[float, ...]:
        rows, t = np.nonzero(self.layer.valid)
        pick = np.linspace(0, len(rows) - 1, min(len(rows), 64)).astype(np.int64)
        rows, t = rows[pick], t[pick]
        old = self.before(rows, t)
        new, _ = self._bare(rows, t, old)
        return tuple(map(_share, old, new, self.after(rows, t)))


def _share(old: Floats, new: Floats, seen: Floats) -> float:
    """Return k where seen = k * old + (1 - k) * new, 0 where seen is new or no such mixture."""
    moved = old - new
    size = float((moved * moved).sum())
    rest = float(np.square(seen - new).sum())
    if rest <= 1e-4 * size:
        return 0.0
    share = float(((seen - new) * moved).sum()) / size if size else 0.0
    left = float(np.square(seen - new - share * moved).sum())
    return share if 0 < share < 1 and left <= 1e-4 * size else 0.0
