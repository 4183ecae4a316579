"""The compiled kernels as the laws use them: by instruction set, and with their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.kernels import NativeKernel, Request, Scan, native
from hiddenstate.kernels.scan import scan

compiled: Any = native.module
SETS: list[str] = compiled.instruction_sets() if compiled else []
FUSED = [name for name in SETS if name != "generic"]
"""Instruction sets that multiply and add in one rounding: their bits are the same."""


@contextmanager
def using(name: str) -> Iterator[None]:
    """Run on one instruction set."""
    before = compiled.instruction_set()
    compiled.select(name)
    try:
        yield
    finally:
        compiled.select(before)


def kinds(inputs: int, height: int) -> list[Cell]:
    """One cell for each way through the compiled code."""
    return [
        Elman(inputs, height),
        Elman(inputs, height, 2, activation="relu"),
        LSTM(inputs, height, 2),
        LSTM(inputs, height, peephole=True),
        LSTM(inputs, height, 0, coupled=True),
        LSTM(inputs, height, forget_gate=False, peephole=True),
        GRU(inputs, height, 2),
        GRU(inputs, height, update="writes"),
        GRU(inputs, height, 2, reset="before"),
        GRU(inputs, height, 0, reset="before", update="writes"),
    ]


def accepted(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if not NativeKernel().refusals(Request(cell, 3, 7))]


def drawn(
    cell: Cell, batch: int, time: int, dtype: Any = np.float32, seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray, Any]:
    """Parameters, x and a State."""
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], scale: float) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(dtype)

    params = {k: draw(s, 1 / np.sqrt(cell.hidden_size)) for k, s in cell.shapes().items()}
    x = draw((batch, time, cell.input_size), 1.0)
    return params, x, cell.State(*(draw((batch, w), 0.5) for w in cell.state_shapes().values()))


def named(ran: Scan) -> dict[str, np.ndarray]:
    """Everything in a Scan by name."""
    found = {"output": ran.output}
    for group in ("state", "gates", "states"):
        if getattr(ran, group) is not None:
            found |= {f"{group}.{k}": v for k, v in getattr(ran, group)._asdict().items()}
    return found if ran.projected is None else {**found, "projected": ran.projected}


def reference(cell: Cell, *given: Any, **options: Any) -> dict[str, np.ndarray]:
    return named(scan(NUMPY, cell, *given, **options))


def fast(
    cell: Cell, *given: Any, threads: int = 1, weights: Any = None, **options: Any
) -> dict[str, np.ndarray]:
    params, *rest = given
    packed = params if weights is None else native.Packed(cell, params, weights)
    return named(NativeKernel(threads).run(cell, packed, *rest, **options))


def gradients(
    cell: Cell,
    params: dict[str, np.ndarray],
    x: np.ndarray,
    state: Any,
    lengths: np.ndarray | None = None,
    *,
    reverse: bool = False,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Gradients of a fixed weighing of the output and the last state, by name."""
    given = native.parameters(params)
    packed = compiled.Packed(*native.code_of(cell), given)
    h, c, *_ = (*state, None)
    y, _, _, kept, _ = compiled.forward(packed, x, h, c, lengths, reverse, native.KEPT, threads)
    rng = np.random.default_rng(5)
    dy, *d_state = (rng.standard_normal(each.shape).astype(x.dtype) for each in (y, *state))
    dh, dc, *_ = (*d_state, None)
    back = compiled.backward(
        *native.code_of(cell), given, x, h, c, lengths, reverse, y, kept, dy, dh, dc, True, threads
    )
    names = ("x", "h", "c", *native.PARAMETERS)
    return {name: each for name, each in zip(names, back, strict=True) if each is not None}


def bits_differ(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    """Return the names whose bits differ; NaN equals NaN."""
    assert left.keys() == right.keys()
    return [k for k in left if not np.array_equal(left[k], right[k], equal_nan=True)]


def rows_of(found: dict[str, np.ndarray], rows: Any, steps: Any = slice(None)) -> dict[str, Any]:
    """Some rows and steps of what `named` gives."""
    return {k: v[rows] if k.startswith("state.") else v[rows][:, steps] for k, v in found.items()}


def float32_error(
    truth: dict[str, np.ndarray], slow: dict[str, np.ndarray], quick: dict[str, np.ndarray]
) -> None:
    """The law of exactness: at most twice the reference's own error, and a few ulp."""
    for name, true in truth.items():
        if true.size:
            error, own = (np.abs(got[name] - true).max() for got in (quick, slow))
            ulp = np.finfo(np.float32).eps * np.abs(true).max()
            assert error <= 2 * own + 8 * ulp, (name, error, own, ulp)
