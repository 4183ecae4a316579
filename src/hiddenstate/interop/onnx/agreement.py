"""An exported model in ONNX Runtime beside ours: the same outputs, states and meanings?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, ModelSpec
from hiddenstate.cells.state import map_state
from hiddenstate.interop.onnx.heads import meanings
from hiddenstate.interop.onnx.session import SLACK, Session
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
EPS = float(np.finfo(np.float32).eps)
CHUNK_STEPS = 3


class Given(NamedTuple):
    """One input: codes [B, T, K], numbers [B, T, F], lengths [B]; a State for each layer."""

    name: str
    codes: Array
    numbers: Array
    lengths: Array
    state: Any

    @property
    def live(self) -> Array:
        """[B, T] bool, true on each row's own steps."""
        live: Array = np.arange(self.codes.shape[1]) < self.lengths[:, None]
        return live


class Found(NamedTuple):
    """What a model gave: each head's o, and the arrays of its state."""

    outputs: list[Array]
    state: list[Array]

    def shown(self, live: Array) -> list[Array]:
        """Return all that means something: outputs of real steps and of sequences, and states."""
        return [*(o[live] if o.ndim == 3 else o for o in self.outputs), *self.state]

    def without(self, part: str) -> Found:
        """Return it without its outputs or without its state."""
        return self._replace(**{part: []})


def prove_model(
    artifact: Artifact, session: Session, rough: Session, *, shortest_steps: int
) -> Proof:
    """Run both on random and on edge inputs, in one call and in chunks; return the differences.

    rough:          the same model with all weights and all layers' outputs an ulp off
    shortest_steps: least T that the exported model runs, 0 or 1

    Allowed is what rounding explains: some times what an ulp moves, and some ulp of the largest
    number.

    Raises ConversionRefusal when a case differs by more.
    """
    spec = artifact.spec
    assert isinstance(spec, ModelSpec)
    ours = Model(artifact)
    streamed = not spec.refusals("streaming")
    cases, misread = [], 0.0
    for given in _inputs(spec, ours, streamed):
        if given.codes.shape[1] < shortest_steps:
            continue
        found = session.run(_feeds(given, given.state))
        truth, theirs = _run(ours, given, streamed), _found(found, spec)
        other = _found(rough.run(_feeds(given, given.state)), spec)
        size = max(1.0, *(float(np.abs(each).max(initial=0)) for each in truth.shown(given.live)))
        allowed = SLACK * _largest(theirs, other, given.live) + 32 * EPS * size
        output = _largest(truth.without("state"), theirs.without("state"), given.live)
        state = _largest(truth.without("outputs"), theirs.without("outputs"), given.live)
        rows, steps = given.codes.shape[:2]
        cases.append(Case(given.name, rows, steps, output, state if streamed else None, allowed))
        if steps:
            misread = float(np.maximum(misread, _misread(ours, spec, found)))
        if streamed and steps > CHUNK_STEPS:
            chunked = _in_chunks(session, spec, given)
            apart = _largest(_steps(theirs), _steps(chunked), given.live)
            cases.append(Case(f"{given.name}, in chunks", rows, steps, apart, None, allowed))
    cases.append(Case("what the outputs mean", ROWS, STEPS, misread, None, 4 * EPS))
    proof = Proof("float32", tuple(cases))
    require_equal(proof)
    return proof


def moved(artifact: Artifact) -> Artifact:
    """Return the same model with every weight an ulp off, up or down at random."""
    rng = np.random.default_rng(1)
    ends = np.array([-np.inf, np.inf], np.float32)
    weights = {
        name: np.nextafter(array, ends[rng.integers(2, size=array.shape)])
        for name, array in artifact.weights.items()
    }
    return Artifact(artifact.spec, weights, {}, {}, {})


def an_ulp_off(width: int) -> Array:
    """Return factors [width] of 1 an ulp up and 1 an ulp down, float32."""
    factors: Array = 1 + EPS * np.where(np.arange(width) % 2, -1, 1)
    return factors.astype(np.float32)


def _inputs(spec: ModelSpec, model: Model, streamed: bool) -> Iterator[Given]:
    rng = np.random.default_rng(0)
    sizes, width = spec.schema.code_sizes, len(spec.schema.number_names)
    shape = (ROWS, STEPS)
    drawn = [rng.integers(size, size=shape) for size in sizes]
    codes = np.stack(drawn, -1) if drawn else np.zeros((*shape, 0), np.int64)
    numbers = rng.standard_normal((*shape, width)).astype(np.float32)
    whole, ragged = np.full(ROWS, STEPS), np.array(LENGTHS)
    nothing = state = None
    if streamed:
        nothing = model.initial_state(ROWS)
        state = map_state(
            lambda a: (0.5 * rng.standard_normal(a.shape)).astype(np.float32), nothing
        )
    yield Given("random", codes, numbers, whole, nothing)
    edges = np.where((np.arange(STEPS) % 2 == 0)[:, None], 0, np.array(sizes, np.int64) - 1)
    codes_at_edges = np.broadcast_to(edges, codes.shape).copy()
    yield Given("first and last codes", codes_at_edges, numbers, whole, nothing)
    yield Given("saturated", codes, np.float32(SATURATING) * numbers, whole, nothing)
    yield Given("one step", codes[:, :1], numbers[:, :1], np.ones(ROWS, np.int64), state)
    yield Given("no steps", codes[:, :0], numbers[:, :0], np.zeros(ROWS, np.int64), state)
    # A row's padding holds NaN: nothing of it may show.
    padded = np.where((np.arange(STEPS) < ragged[:, None])[..., None], numbers, np.float32(np.nan))
    yield Given("ragged", codes, padded, ragged, nothing)
    if streamed:
        yield Given("given states", codes, numbers, whole, state)
        yield Given("ragged, given states", codes, padded, ragged, state)


def _run(model: Model, given: Given, streamed: bool) -> Found:
    if not streamed:
        return Found(list(model.run_whole(given.codes, given.numbers, given.lengths)), [])
    outputs, state = model.run(given.codes, given.numbers, given.lengths, given.state)
    return Found(list(outputs), _arrays(state))


def _feeds(given: Given, state: Any) -> dict[str, Array]:
    feeds = {"codes": given.codes, "numbers": given.numbers, "lengths": given.lengths}
    for k, layer in enumerate(state or ()):
        feeds |= {f"state.{k}.{name}": array for name, array in layer._asdict().items()}
    return feeds


def _found(found: Mapping[str, Array], spec: ModelSpec) -> Found:
    state = [array for name, array in found.items() if name.startswith("next_state.")]
    return Found([raw for raw, _ in _by_head(found, spec)], state)


def _by_head(found: Mapping[str, Array], spec: ModelSpec) -> list[tuple[Array, list[Array]]]:
    """Return each head's o and the outputs that say what it means."""
    left = [array for name, array in found.items() if not name.startswith("next_state.")]
    heads = []
    for head in spec.heads:
        count = len(meanings(head))
        heads.append((left[0], left[1 : 1 + count]))
        left = left[1 + count :]
    return heads


def _misread(model: Model, spec: ModelSpec, found: Mapping[str, Array]) -> float:
    """Return the largest relative difference in what the same o means, here and there."""
    differences = [0.0]
    heads = _by_head(found, spec)
    # Beyond float32 both are infinite, and equal.
    with np.errstate(over="ignore"):
        decoded = model.decode(tuple(raw for raw, _ in heads))
        for head, (_, told), ours in zip(spec.heads, heads, decoded, strict=True):
            for meaning, theirs in zip(meanings(head).values(), told, strict=True):
                wanted = meaning(ours).astype(np.float32)
                if wanted.shape != theirs.shape:
                    return float("inf")
                apart = np.zeros_like(wanted)
                np.subtract(wanted, theirs, out=apart, where=wanted != theirs)
                differences.append(float((np.abs(apart) / np.maximum(1, np.abs(wanted))).max()))
    return float(np.max(differences))


def _in_chunks(session: Session, spec: ModelSpec, given: Given) -> Found:
    """Run ONNX Runtime a few steps at a time, each time on from the state that it returned."""
    state, parts = given.state, []
    for start in range(0, given.codes.shape[1], CHUNK_STEPS):
        some = slice(start, start + CHUNK_STEPS)
        chunk = Given(
            given.name,
            given.codes[:, some],
            given.numbers[:, some],
            np.clip(given.lengths - start, 0, len(given.codes[0, some])),
            state,
        )
        found = session.run(_feeds(chunk, state))
        parts.append(_found(found, spec))
        state = tuple(
            layer._replace(**{name: found[f"next_state.{k}.{name}"] for name in layer._fields})
            for k, layer in enumerate(state)
        )
    joined = [
        np.concatenate(each, axis=1) if each[0].ndim == 3 else each[-1]
        for each in zip(*(part.outputs for part in parts), strict=True)
    ]
    return Found(joined, parts[-1].state)


def _steps(found: Found) -> Found:
    """Leave out what is said of a whole sequence: a chunk says it of the chunk."""
    return found._replace(outputs=[o for o in found.outputs if o.ndim == 3])


def _arrays(state: Any) -> list[Array]:
    found: list[Array] = []
    map_state(found.append, state)
    return found


def _largest(left: Found, right: Found, live: Array) -> float:
    """Return the largest difference; NaN where one is, infinity where shapes differ."""
    pairs = list(zip(left.shown(live), right.shown(live), strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return float(np.max([np.abs(a - b).max(initial=0.0) for a, b in pairs], initial=0.0))
