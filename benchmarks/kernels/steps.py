"""Items 2 and 7: one step through the Python call, each step from the state before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.kernels import onnx_candidates
from benchmarks.kernels.measure import Arrays, Candidate, Row, measured
from benchmarks.kernels.plan import AVX2, Setting
from benchmarks.kernels.subject import MODULES, NAMES, TORCH_CELLS, Subject
from hiddenstate.kernels import Stepper

WIDTHS = (32, 64, 128, 256, 512)
BATCHES = (1, 64)
OURS, ORT, CELL, LAYER = "hiddenstate", "ONNX Runtime", "torch cell", "torch.nn"
# Weights of fewer bits, with the change of the state that still counts as the same model.
FEWER_BITS = {"bfloat16": 0.02, "int8": 0.05}
ORT_TARGETS = {32: 5.0, 64: 3.5, 128: 1.9, 256: 1.4, 512: 1.2}
TORCH_TARGETS = {"LSTM": 17.0, "GRU": 9.0}
BFLOAT16_TARGET, BFLOAT16_FROM = 1.6, 256
# The steps after which states are compared.
STEPS = 5


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each cell, batch and width."""
    for kind in MODULES:
        for batch in BATCHES:
            for width in WIDTHS[:2] if setting.quick else WIDTHS:
                yield _row(Subject(kind, batch, STEPS, width, width), setting)


def _row(subject: Subject, setting: Setting) -> Row:
    candidates = {OURS: _ours(subject, "float32")}
    for weights, within in FEWER_BITS.items():
        candidates[f"{OURS}, {weights}"] = _ours(subject, weights, within)
    if onnx_candidates.HAS_ORT:
        candidates[ORT] = _ort(subject, setting.threads)
    candidates[CELL] = _torch_cell(subject)
    candidates[LAYER] = _torch_layer(subject)
    with torch.no_grad():
        _, truth = subject.again(wide=True)(torch.tensor(subject.x).double())
    states = [each[0] for each in _tuple(truth)]
    sizes = f"{subject.kind} B={subject.batch} H={subject.hidden_size}"
    row = measured(sizes, candidates, states, setting, LAYER)
    _judge(row, subject, held=setting.variant == AVX2)
    return row


def _judge(row: Row, subject: Subject, held: bool) -> None:
    kind, width, alone = subject.kind, subject.hidden_size, subject.batch == 1
    least = ORT_TARGETS[width] if alone and kind != "Elman" else None
    row.compare(OURS, [ORT], "× ONNX Runtime", 1.0 if held else least)
    row.compare(OURS, [CELL], "× torch cell")
    against_layer = TORCH_TARGETS.get(kind) if alone and width <= 128 and not held else None
    row.compare(OURS, [LAYER], "× torch.nn", against_layer)
    for weights in FEWER_BITS:
        asked = weights == "bfloat16" and alone and width >= BFLOAT16_FROM and not held
        what = f"{weights} × float32"
        row.compare(f"{OURS}, {weights}", [OURS], what, BFLOAT16_TARGET if asked else None)
        row.check(f"{weights}: change of the state", [row.errors[f"{OURS}, {weights}"]])


def _stepping(
    inputs: Sequence[Any],
    step: Callable[[Any], Any],
    read: Callable[[Any], Arrays],
    within: float = 0.0,
) -> Candidate:
    """Return one step as a candidate; its states are read after a step with each input."""

    def first() -> Any:
        for x_t in inputs:
            last = step(x_t)
        return last

    return Candidate(lambda: step(inputs[0]), read, within, first)


def _arrays(subject: Subject) -> list[Any]:
    """Return x_t [B, D] of each step."""
    return [np.ascontiguousarray(subject.x[:, t]) for t in range(STEPS)]


def _ours(subject: Subject, weights: str, within: float = 0.0) -> Candidate:
    stepper = Stepper(subject.cell, subject.params, batch=subject.batch, weights=weights)
    into, run = stepper.x, stepper.step

    def step(x_t: Any) -> None:
        into[...] = x_t
        run()

    return _stepping(_arrays(subject), step, lambda _: [*map(np.copy, stepper.state)], within)


def _ort(subject: Subject, threads: int) -> Candidate:
    loop = onnx_candidates.steps(subject, threads)
    into, run = loop.others["X"][0], loop.step

    def step(x_t: Any) -> Any:
        into[...] = x_t
        return run()

    return _stepping(_arrays(subject), step, lambda state: [each[0] for each in state.values()])


def _torch_cell(subject: Subject) -> Candidate:
    cell = TORCH_CELLS[subject.kind](subject.input_size, subject.hidden_size)
    weights = {name: getattr(subject.module, f"{name}_l0") for name in NAMES.values()}
    cell.load_state_dict(weights)
    state = None

    def step(x_t: Any) -> Any:
        nonlocal state
        with torch.inference_mode():
            state = cell(x_t, state)
        return state

    return _stepping([*map(torch.tensor, _arrays(subject))], step, _tuple)


def _torch_layer(subject: Subject) -> Candidate:
    layer = subject.again(batch_first=False)
    state = None

    def step(x_t: Any) -> Any:
        nonlocal state
        with torch.inference_mode():
            _, state = layer(x_t, state)
        return state

    inputs = [torch.tensor(x_t)[None] for x_t in _arrays(subject)]
    return _stepping(inputs, step, lambda state: [each[0] for each in _tuple(state)])


def _tuple(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)
