"""A foreign graph in ONNX Runtime beside the artifact that it became."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.cells.state import map_state
from hiddenstate.errors import SpecError
from hiddenstate.interop.onnx.agreement import EPS, Given, moved
from hiddenstate.interop.onnx.flows import FEATURES, WAYS, Atom, Axis
from hiddenstate.interop.onnx.imported_model import Reading, Unfit
from hiddenstate.interop.onnx.session import SLACK, Session
from hiddenstate.interop.onnx.walk import Walk
from hiddenstate.interop.proof import (
    LENGTHS,
    ROWS,
    SATURATING,
    STEPS,
    Case,
    Proof,
    require_equal,
)
from hiddenstate.runtime import Model

Array = NDArray[Any]

MOST_NUMBERS = 2**24
"""Numbers of a batch that is made to try a graph whose sizes are fixed."""


class Runs(Protocol):
    """A model that gives its outputs by name."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for all of the inputs."""


class Evaluator:
    """ONNX's own reference, for layout 1, which ONNX Runtime does not know on the processor."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name; raises Unfit."""
        try:
            evaluator = ReferenceEvaluator(self._model)
            # Its sigmoid overflows on the way to the right 0.
            with np.errstate(over="ignore"):
                outputs = evaluator.run(None, dict(feeds))
        except Exception as problem:  # whatever a mistake in the graph makes it raise
            raise Unfit([f"ONNX's own reference does not run it: {problem}"]) from None
        return dict(zip(evaluator.output_names, outputs, strict=True))


def prove_import(reading: Reading, walk: Walk, model: ModelProto) -> Proof:
    """Run both on random and on edge inputs; return the differences, or raise Unfit.

    Allowed is what rounding explains: some times what our own runtime moves when every weight is
    moved by an ulp, and some ulp of the largest number.
    """
    ours, rough = Model(reading.artifact), Model(moved(reading.artifact))
    cases = []
    try:
        theirs = _other(reading, walk, model)
        for given in _inputs(reading, walk, ours):
            found = theirs.run(_feeds(reading, walk, given))
            # Weights of any size may come; what overflows on both sides is a difference.
            with np.errstate(over="ignore", invalid="ignore"):
                cases.append(_case(reading, (ours, rough), found, given))
        proof = Proof("float32", tuple(cases))
        require_equal(proof)
    except (SpecError, ConversionRefusal) as refusal:
        raise Unfit([refusal.wrong.rstrip(".")]) from None
    return proof


def _other(reading: Reading, walk: Walk, model: ModelProto) -> Runs:
    if not any(node.operator.layout for node in walk.nodes):
        return Session(model)
    if reading.lengths is not None or any(node.operator.kind == "RNN" for node in walk.nodes):
        raise Unfit(["it has layout 1, and lengths or an RNN, which nothing here can run beside"])
    return Evaluator(model)


def _places(reading: Reading, walk: Walk) -> tuple[int, int]:
    """Return where rows and steps lie among the axes of the input that the lowest layer reads."""
    first, second = walk.inputs[reading.source.name].axes[:2]
    # Axes of size 1 are called alike; then the other axis tells, or it does not matter.
    batch_first = (reading.bottom.time or None) == second or (reading.bottom.batch or None) == first
    return (0, 1) if batch_first else (1, 0)


def _inputs(reading: Reading, walk: Walk, model: Model) -> Iterator[Given]:
    rng, spec = np.random.default_rng(0), reading.spec
    dims = walk.inputs[reading.source.name].dims
    fixed = [dims[place] for place in _places(reading, walk)]
    rows, steps = (size or usual for size, usual in zip(fixed, (ROWS, STEPS)))
    codes = np.zeros((rows, steps, 0), np.int64)
    if spec.embeddings:
        codes = rng.integers(spec.schema.code_sizes[0], size=(rows, steps, 1))
    shape = (rows, steps, len(spec.schema.number_names))
    if rows * steps * max(1, shape[-1]) > MOST_NUMBERS:
        raise Unfit([f"its input {reading.source.name!r} has the fixed size {list(dims)}"])
    numbers = rng.standard_normal(shape).astype(np.float32)
    whole = np.full(rows, steps)
    state = None if spec.refusals("streaming") else model.initial_state(rows)
    yield Given("random", codes, numbers, whole, state)
    yield Given("saturated", codes, np.float32(SATURATING) * numbers, whole, state)
    if reading.states:
        drawn = map_state(lambda a: (0.5 * rng.standard_normal(a.shape)).astype(np.float32), state)
        yield Given("given states", codes, numbers, whole, drawn)
    if fixed == [None, None]:
        one = np.ones(rows, np.int64)
        yield Given("one step", codes[:, :1], numbers[:, :1], one, state)
        first = map_state(lambda a: a[:1], state)
        yield Given("one row", codes[:1], numbers[:1], whole[:1], first)
    if reading.lengths is not None:
        ragged = np.clip(np.resize(LENGTHS, rows), 1, steps)
        yield Given("ragged", codes, numbers, ragged, state)


def _feeds(reading: Reading, walk: Walk, given: Given) -> dict[str, Array]:
    """Return the graph's own inputs."""
    x = given.codes[..., 0] if reading.source.table is not None else given.numbers
    if _places(reading, walk) == (1, 0):
        x = x.swapaxes(0, 1)
    feeds = {reading.source.name: x}
    if reading.lengths is not None:
        feeds[reading.lengths] = given.lengths
    for name, place, layer, array in reading.states:
        part = getattr(given.state[layer], array)
        count = 1 + max(each.place for each in reading.states if each.name == name)
        whole = feeds.setdefault(name, np.zeros((count, *part.shape), np.float32))
        whole[place] = part
    return {name: array.astype(walk.inputs[name].dtype) for name, array in feeds.items()}


class _Shown(NamedTuple):
    """What our model gives for an output: zero past a row's length, and what its axes are."""

    array: Array
    labels: tuple[Axis, ...]
    live: Array


def _case(
    reading: Reading, models: tuple[Model, Model], found: Mapping[str, Array], given: Given
) -> Case:
    truth, rough = (_shown(reading, model, given) for model in models)
    size, lost, outputs, states = 1.0, 0.0, 0.0, 0.0
    for name, shown in truth.items():
        flow = reading.heads.get(name) or reading.lasts[name]
        theirs = _as_ours(found[name], flow.axes, shown)
        if theirs is None:
            raise Unfit([f"its output {name!r} has another shape than the graph tells"])
        apart = float(np.abs(shown.array - np.where(shown.live, theirs, 0)).max(initial=0))
        lost = max(lost, float(np.abs(shown.array - rough[name].array).max(initial=0)))
        size = max(size, float(np.abs(shown.array).max(initial=0)))
        # np.maximum keeps a NaN.
        if name in reading.heads:
            outputs = float(np.maximum(outputs, apart))
        else:
            states = float(np.maximum(states, apart))
    rows, steps = given.codes.shape[:2]
    allowed = SLACK * lost + 32 * EPS * size
    return Case(given.name, rows, steps, outputs, states if reading.lasts else None, allowed)


def _shown(reading: Reading, model: Model, given: Given) -> dict[str, _Shown]:
    """Return what our model gives for each of the graph's outputs."""
    if given.state is None:
        outputs, state = model.run_whole(given.codes, given.numbers, given.lengths), None
    else:
        outputs, state = model.run(given.codes, given.numbers, given.lengths, given.state)
    batch, time, found = reading.bottom.batch, reading.bottom.time, {}
    for (name, flow), o in zip(reading.heads.items(), outputs, strict=True):
        ways = 1 if flow.kind == "head" else len(flow.ways)
        array = _said(flow.head.said if flow.head else "", o)
        array = array.reshape(*array.shape[:-1], ways, -1)
        pooled = array.ndim == 3
        live = np.ones((), bool) if pooled else given.live[..., None, None]
        labels = (batch, *([] if pooled else [time]), (WAYS,), (FEATURES,))
        found[name] = _Shown(np.where(live, array, 0), labels, live)
    for name, flow in reading.lasts.items():
        if state is not None:
            parts = [getattr(state[reading.layer_of(way)], flow.kind[-1]) for way in flow.ways]
            labels = (batch, (WAYS,), (FEATURES,))
            found[name] = _Shown(np.stack(parts, axis=1), labels, np.ones((), bool))
    return found


def _said(kind: str, o: Array) -> Array:
    wide = o.astype(np.float64)
    if kind == "Sigmoid":
        wide = 1.0 / (1.0 + np.exp(-wide))
    elif kind:
        wide = wide - wide.max(axis=-1, keepdims=True)
        wide = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
        wide = np.exp(wide) if kind == "Softmax" else wide
    return wide.astype(np.float32)


def _as_ours(theirs: Array, axes: tuple[Axis, ...], shown: _Shown) -> Array | None:
    """Return a graph's output with its axes in our order, None where its size is another."""
    order: list[Atom] = [atom for axis in axes for atom in axis]
    sizes = {label[0]: size for label, size in zip(shown.labels, shown.array.shape) if label}
    if theirs.size != shown.array.size or not set(order) <= set(sizes):
        return None
    present = [label[0] for label in shown.labels if label and label[0] in order]
    apart = theirs.reshape([sizes[atom] for atom in order])
    turned = apart.transpose([order.index(atom) for atom in present])
    return turned.reshape(shown.array.shape)
