"""The kernel "native": the cells in C++, compiled for each instruction set, without torch.

Computes Elman, LSTM (with peepholes, with a coupled forget gate or none) and GRU in all its
conventions, in float32 and float64, over ragged rows, in both directions. Refuses a projection and
layer norm inside an LSTM, zoneout, and, as everything in NumPy, gradients; `hiddenstate.nn` gives
the same code a way back.

A row's result has the same bits alone and in any batch, on any number of threads, streamed and
whole, and on every instruction set that fuses multiply and add. What earned it its place is
measured in docs/results/kernels.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

import numpy as np

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.cells.arrays import Array, ArrayOps
from hiddenstate.cells.cell import Params
from hiddenstate.errors import KernelRefusal, ShapeError, SpecError, UsageError, nearest
from hiddenstate.kernels.registry import Request
from hiddenstate.kernels.scan import Scan, Zoneout, require_fit, whole_lengths

module: Any = None
MISSING = ""
try:
    module = import_module("hiddenstate.kernels._native")
except ImportError as problem:  # installed without a compiler, or for another Python
    MISSING = f"the compiled kernels are not installed ({problem})"

Storage = Literal["float32", "bfloat16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "int8")
PARAMETERS = ("w_x", "w_h", "b_x", "b_h", "p_i", "p_f", "p_o")
KEPT, PROJECTED, CLEAR = 1, 2, 4
"""What a forward pass keeps: gates; W_x x + b_x; and zeros past a row's length in both."""


def _from_environment() -> None:
    """Obey HIDDENSTATE_ISA, the name of an instruction set."""
    wanted = os.environ.get("HIDDENSTATE_ISA", "")
    if module is not None and wanted:
        names = module.instruction_sets()
        if wanted not in names:
            raise UsageError(
                f"HIDDENSTATE_ISA is {wanted!r}.",
                f"The instruction sets compiled in that this processor has are {', '.join(names)}.",
                f"Name one of them, or unset it for the best one.{nearest(wanted, names)}",
            )
        module.select(wanted)


@cache
def available_threads() -> int:
    """Return HIDDENSTATE_THREADS, or the number of processors that this process may use."""
    given = os.environ.get("HIDDENSTATE_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if not given.isdecimal() or not 1 <= int(given) <= 1024:
        raise UsageError(
            f"HIDDENSTATE_THREADS is {given!r}.",
            "It is the number of threads of the compiled kernels, from 1 to 1024.",
            "Correct it, or unset it for all processors.",
        )
    return int(given)


def status() -> str:
    """Return one line: which instruction set the compiled kernels use, or why they are missing."""
    if module is None:
        return f"compiled kernels: none; {MISSING}. Install a C++ compiler and install again."
    others = [name for name in module.instruction_sets() if name != module.instruction_set()]
    also = f" (also here: {', '.join(others)})" if others else ""
    return f"compiled kernels: {module.instruction_set()}{also}"


def code_of(cell: Cell) -> tuple[int, bool, bool]:
    """Return kind, peephole and writes, as the compiled kernels name a cell."""
    if isinstance(cell, Elman):
        return (0 if cell.activation == "tanh" else 1), False, False
    if isinstance(cell, LSTM):
        kind = 3 if cell.coupled else 2 if cell.forget_gate else 4
        return kind, cell.peephole, False
    assert isinstance(cell, GRU)
    return (5 if cell.reset == "after" else 6), False, cell.update == "writes"


def refusals(request: Request) -> list[str]:
    """Return the reasons why the compiled kernels cannot run a request, gradients aside."""
    cell = request.cell
    reasons = [MISSING] if module is None else []
    if isinstance(cell, LSTM):
        wanted = {"projection": cell.projection, "layer norm inside the cell": cell.layer_norm}
        reasons += [f"they have no LSTM with {name}" for name, has in wanted.items() if has]
    elif not isinstance(cell, (Elman, GRU)):
        reasons.append(f"they have no cell {cell.name}")
    if request.dtype not in ("float32", "float64"):
        reasons.append(f"they compute in float32 and float64, not in {request.dtype}")
    if request.device != "cpu":
        reasons.append(f"they run on the processor, not on {request.device}")
    if request.zoneout:
        reasons.append("they have no zoneout")
    return reasons


def parameters(params: Params) -> tuple[Any, ...]:
    """Return a cell's parameters in the order of the compiled kernels, None for those it lacks."""
    return tuple(params.get(name) for name in PARAMETERS)


class Packed(dict[str, Array]):
    """A cell's parameters by name, and a copy of them in the layout that the kernels read.

    weights: how w_x and w_h are stored: float32, bfloat16 (half the memory) or int8 with a scale
             for each row (a quarter); sums are always in float32. What it costs in exactness is
             measured in docs/results/kernels.md

    The copy is made once: change a parameter, and pack again. Raises SpecError for a storage
    that does not exist or that float64 cannot have, KernelRefusal where the kernels cannot run.
    """

    def __init__(self, cell: Cell, params: Params, weights: Storage = "float32") -> None:
        super().__init__(params)
        dtype = str(next(iter(params.values())).dtype)
        if weights not in STORAGES or (weights != "float32" and dtype != "float32"):
            raise SpecError(
                f"The weights are {dtype} and shall be stored as {weights!r}.",
                f"float32 weights can be stored as {', '.join(STORAGES)}.",
                "Choose one of them, or convert the weights to float32.",
            )
        if reasons := refusals(Request(cell, 1, 1, dtype=dtype)):
            raise KernelRefusal(
                f"The cell {cell.name} ({cell.convention}) cannot be packed: {'; '.join(reasons)}.",
                "Packed parameters are for the compiled kernels.",
                "Run the parameters as they are; the reference kernel takes them.",
            )
        self.weights = weights
        self.native = module.Packed(*code_of(cell), parameters(params), STORAGES.index(weights))


def packed_if_able(cell: Cell, params: Params, weights: Storage = "float32") -> Params:
    """Return params, packed where the compiled kernels can run the cell in their type."""
    dtype = str(next(iter(params.values())).dtype)
    if weights == "float32" and refusals(Request(cell, 1, 1, dtype=dtype)):
        return params
    return Packed(cell, params, weights)


def scan_of(
    xp: ArrayOps,
    cell: Cell,
    ran: tuple[Any, ...],
    first: Any,
    lengths: Any | None,
    *,
    reverse: bool,
    trace: bool,
) -> Scan:
    """Return the Scan of y, h, c, kept and projected; the trace is a view of what was kept.

    first: the State given, or None
    """
    y, h, c, kept, projected = ran
    state = cell.State(h) if c is None else cell.State(h, c)
    if not trace:
        return Scan(y, state)
    blocks = () if kept is None else xp.unstack(_cropped(kept, cell.hidden_size), 2)
    over_time, gates = [y], list(blocks)
    if isinstance(cell, GRU):
        gates = gates[-3:]
    elif isinstance(cell, LSTM):
        *gates, c_t = blocks
        over_time.append(c_t)
        if len(gates) == 3:
            i, g, o = gates
            f = 1.0 - i if cell.coupled else 0.0 * i + 1.0
            gates = [i, f, g, o]
    if lengths is not None:
        live = xp.live(whole_lengths(lengths, *y.shape[:2]), y.shape[1], y)
        if isinstance(cell, LSTM) and len(blocks) == 4:
            gates[1] = xp.where(live, gates[1], 0.0)
        # Past its length a row keeps the state it ended with, or, backwards, began with.
        waiting = state if not reverse else first
        if waiting is None:
            waiting = cell.initial_state(xp, y.shape[0], y)
        over_time = [
            xp.where(live, each, kept_there[:, None])
            for each, kept_there in zip(over_time, waiting)
        ]
    projected = _cropped(projected, cell.hidden_size)
    return Scan(y, state, cell.Gates(*gates), cell.State(*over_time), projected)


def _cropped(blocks: Any, height: int) -> Any:
    """Return blocks [B, T, K, Hp] without what fills them up to whole vectors."""
    # A view costs microseconds in torch: of a short sequence, more than the cell itself.
    return blocks if blocks.shape[3] == height else blocks[..., :height]


@dataclass(frozen=True)
class NativeKernel:
    """The compiled kernels for NumPy arrays, as a `hiddenstate.kernels.Kernel`.

    threads: how many may share the rows of a call, or the columns of few rows; None:
             `available_threads`
    """

    threads: int | None = None
    name: str = "native"

    def refusals(self, request: Request) -> list[str]:
        """Return the reasons why they cannot run this request."""
        reasons = refusals(request)
        if request.needs_grad or request.second_order:
            reasons.append("numpy records no gradients")
        return reasons

    def run(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: Any | None = None,
        lengths: Any | None = None,
        *,
        reverse: bool = False,
        trace: bool = False,
        zoneout: Zoneout | None = None,
        final_state: bool = True,  # noqa: ARG002 - it costs nothing here
    ) -> Scan:
        """Run x [B, T, D] as `scan` does; params may be `Packed`. Raises KernelRefusal."""
        if zoneout is not None:
            raise KernelRefusal(
                "The kernel native was run with zoneout.",
                "It refuses that when it is asked first.",
                "Choose a kernel with hiddenstate.kernels.choose.",
            )
        require_fit(cell, x, state)
        if not isinstance(params, Packed):
            params = Packed(cell, params)
        elif params.native.instruction_set != isa():
            params = Packed(cell, params, params.weights)
        if lengths is not None:
            lengths = np.asarray(whole_lengths(lengths, *x.shape[:2]), dtype=np.int64)
        x = np.asarray(x, dtype=params["w_x"].dtype)
        first = () if state is None else tuple(np.asarray(each, dtype=x.dtype) for each in state)
        h, c, *_ = (*first, None, None)
        want = (KEPT | PROJECTED | (CLEAR if lengths is not None else 0)) if trace else 0
        ran = module.forward(
            params.native, x, h, c, lengths, reverse, want, self.threads or available_threads()
        )
        return scan_of(NUMPY, cell, ran, state, lengths, reverse=reverse, trace=trace)


def isa() -> str:
    """Return the name of the instruction set in use."""
    return str(module.instruction_set())


def padded(height: int, double: bool = False) -> int:
    """Return the width of a kept block of `height` units: whole vectors of the instruction set."""
    width: int = (module.padded_double if double else module.padded)(height)
    return width


class Stepper:
    """Some rows of one cell, stepped in place: the shortest way from an event to the next state.

    threads: how many may share the rows, or of few rows the columns, where they are worth it; None:
             `available_threads`

    x:     [B, D] float32, where the inputs of the next step are written
    state: the State [B, H] float32, where the result is read and a stored state is put
    step:  takes one step of all rows; it allocates nothing and checks nothing. Helpers are woken
           where step follows on step, and sleep 100 µs after the last

    Raises as `Packed` does.

    >>> import numpy as np
    >>> from hiddenstate.cells import GRU
    >>> cell = GRU(3, 4)
    >>> stepper = Stepper(cell, cell.init(np.random.default_rng(0)))
    >>> stepper.x[:] = 1.0
    >>> stepper.step(); stepper.state.h.shape
    (1, 4)
    """

    def __init__(
        self,
        cell: Cell,
        params: Params,
        batch: int = 1,
        weights: Storage = "float32",
        threads: int | None = None,
    ) -> None:
        single = {name: np.asarray(each, np.float32) for name, each in params.items()}
        native = _native_stepper(Packed(cell, single, weights), batch, threads)
        self.cell = cell
        self.x, h, c = native.arrays()
        self.state = cell.State(*(h, c)[: len(cell.State._fields)])
        self.step = native.step


def _native_stepper(packed: Packed, batch: int, threads: int | None) -> Any:
    if batch < 1:
        raise ShapeError(
            f"A Stepper was asked for {batch} rows.", "It has at least one.", "Give a batch of 1."
        )
    return module.Stepper(packed.native, batch, threads or available_threads())


class Linear:
    """o = W x + b in which a row has the same bits alone and in any batch.

    w [V, H] and b [V] are packed once, in float32. Without the compiled kernels NumPy computes it,
    whose last bits may depend on the batch.
    """

    def __init__(self, w: Array, b: Array | None) -> None:
        self.w, self.b = w, b
        self._native = None if module is None else module.Linear(w, b)

    def __call__(self, x: Array) -> Array:
        """Map x [..., H] to [..., V]."""
        if self._native is None:
            return NUMPY.linear(x, self.w, self.b)
        rows = np.asarray(x, np.float32).reshape(-1, x.shape[-1])
        return self._native.run(rows, available_threads()).reshape(*x.shape[:-1], len(self.w))


def linear_scan(a: Array, b: Array, first: Array | None = None) -> Array:
    """Return h [B, T, D] with h_t = a_t * h_{t-1} + b_t, the diagonal linear recurrence.

    a, b:  [B, T, D], both float32 or both float64
    first: h before the first step, [B, D]; None is zeros

    Raises ShapeError. Source: Orvieto et al. 2023, arXiv:2303.06349, eq. 2, for its use in models.

    >>> import numpy as np
    >>> linear_scan(np.full((1, 3, 1), 0.6), np.array([[[1.0], [0.4], [0.9]]]))[0, -1]
    array([1.5])
    """
    a, b = np.asarray(a), np.asarray(b)
    require_scan(a, b, first)
    if module is not None and str(a.dtype) in ("float32", "float64"):
        return module.linear_scan(a, b, first, available_threads())
    h = np.empty_like(b)
    last = np.zeros_like(b[:, 0]) if first is None else first
    for t in range(b.shape[1]):
        last = h[:, t] = a[:, t] * last + b[:, t]
    return h


def require_scan(a: Array, b: Array, first: Array | None) -> None:
    """Raise ShapeError unless a and b are [B, T, D] of one type and first is [B, D]."""
    given = {"a": a, "b": b} | ({} if first is None else {"first": first})
    batch = (*b.shape[:1], *b.shape[2:])
    shapes = {"a": tuple(b.shape), "b": tuple(b.shape), "first": batch}
    if b.ndim != 3 or any(
        tuple(each.shape) != shapes[name] or each.dtype != b.dtype for name, each in given.items()
    ):
        found = ", ".join(f"{name} {each.dtype} {list(each.shape)}" for name, each in given.items())
        raise ShapeError(
            f"A linear scan got {found}.",
            "It needs a and b of one shape [B, T, D] and first [B, D], all of one type.",
            "Bring them to these shapes; a constant a is repeated with broadcast_to.",
        )


_from_environment()
