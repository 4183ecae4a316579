"""A transformer's block in NumPy, and the plan of one run that all blocks share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact.transformer import KVCache, TransformerSpec, rates
from hiddenstate.cells import NUMPY

Array = NDArray[Any]
Allowed = Callable[[int, int], tuple[slice, Array | None]]
"""Says of the queries from start to stop which slots to look at, and which of those each query sees
as bool [B or 1, stop - start, slots], or None for all."""

LARGEST_SCORES = 1_000_000
"""Scores computed at once, 4 MB of them; more queries take turns."""
SPARE_STEPS = 32
"""A full cache is made larger by these and by half of what it holds."""
_LOWEST = np.float32(np.finfo(np.float32).min)


class GrowingCache(KVCache):
    """A KVCache whose arrays are the filled part of larger ones, the room.

    room: holds the larger keys and values [B, C, H, E] once. Who first goes on from this state
          takes them out and writes behind its steps; who comes later finds none and copies. So a
          state stays what it was, however often and by whichever thread it is continued.
    """

    room: list[tuple[Array, Array]] | None = None

    def take_room(self) -> tuple[Array, Array] | None:
        """Return the room to the first who asks, and None to all others."""
        try:
            # Atomic, unlike a look before it: two threads may go on from one state.
            return self.room.pop() if self.room is not None else None
        except IndexError:
            return None


class Plan(NamedTuple):
    """How T new steps stand behind those that the cache holds, the same for every block.

    valid [B, T]:  real new steps; None = all
    before [B]:    steps that a row has seen before
    filled [B]:    of these in the cache, from the left
    written:       rows, new steps and slots of the real new steps; rows and steps of one shape
    span:          slots to look at: what the longest row keeps, and T
    waves:         cosines and sines [B, T, 1, E / 2] that turn queries and keys; None unless
                   positions are rotary
    final_state:   whether the next cache is wanted
    """

    spec: TransformerSpec
    time: int
    valid: Array | None
    before: Array
    filled: Array
    written: tuple[Array, Array, Array]
    span: int
    waves: tuple[Array, Array] | None
    final_state: bool

    @staticmethod
    def of(
        spec: TransformerSpec,
        shape: tuple[int, int],
        valid: Array | None,
        cache: KVCache | None,
        final_state: bool,
    ) -> Plan:
        """Plan a run of [B, T] steps, on from a cache (of any block), or from the beginning."""
        batch, time = shape
        before = np.zeros(batch, np.int64) if cache is None else cache.steps
        filled = before if spec.kept_steps is None else np.minimum(before, spec.kept_steps)
        rows, steps = np.nonzero(np.ones(shape, bool) if valid is None else valid)
        waves = None
        if spec.positions == "rotary":
            cosine, sine = waves_of(before[:, None] + np.arange(time), spec.head_size)
            waves = cosine[:, :, None], sine[:, :, None]
        return Plan(
            spec,
            time,
            valid,
            before,
            filled,
            (rows, steps, filled[rows] + steps),
            int(filled.max(initial=0)) + time,
            waves,
            final_state and spec.causal,
        )

    def sinusoids(self) -> Array:
        """Return what tells each step's position, sin and cos by turns, [B, T, d]."""
        size = self.spec.size
        cosine, sine = waves_of(self.before[:, None] + np.arange(self.time), size)
        return np.stack([sine, cosine], axis=-1).reshape(*sine.shape[:2], size)

    def allowed(self, start: int, stop: int) -> tuple[slice, Array | None]:
        """Return what the new steps from start to stop may see; see `Allowed`."""
        if not self.spec.causal:
            return slice(None), None if self.valid is None else self.valid[:, None]
        window = self.spec.window_steps
        uniform = (self.filled == self.filled[:1]).all()
        places = (self.filled[:1] if uniform else self.filled)[:, None] + np.arange(start, stop)
        first = 0 if window is None else max(0, int(places.min(initial=self.span)) - window + 1)
        slots = slice(first, self.span - self.time + stop)
        back = places[..., None] - np.arange(slots.start, slots.stop)
        mask = back >= 0
        if window is not None:
            mask &= back < window
        return slots, None if mask.all() else mask


class Block:
    """Self-attention, a look at the memory where there is one, and a feed-forward part."""

    def __init__(self, spec: TransformerSpec, weights: Mapping[str, Array], prefix: str) -> None:
        """Take the block's weights, whose names begin with `prefix`."""
        self._spec = spec
        parts = {name.rpartition(".")[0] for name in weights if name.startswith(prefix)}
        self._weights = {
            part.removeprefix(prefix): (weights[f"{part}.weight"], weights[f"{part}.bias"])
            for part in parts
        }

    def remember(self, memory: Array, lengths: Array) -> KVCache:
        """Return the keys and values of a memory [B, M, .] of lengths [B], made once."""
        keys, values = self._heads("memory_key_value", memory, 2)
        return KVCache(keys, values, lengths)

    def run(
        self, x: Array, cache: KVCache | None, plan: Plan, looks: list[Array] | None = None
    ) -> tuple[Array, KVCache | None]:
        """Return the output [B, T, d] and the next cache, if it was planned.

        looks: gets the weights [B, H, T, M] with which the memory was looked at
        """
        query, keys, values = self._heads("query_key_value", self._normed("norm", x), 3)
        if plan.waves is not None:
            query, keys = rotate(query, *plan.waves), rotate(keys, *plan.waves)
        room = None
        if cache is not None:
            room = _written(cache, keys, values, plan)
            keys, values = (each[:, : plan.span] for each in room)
        x = x + self._linear("out", attend(query, keys, values, plan.allowed))
        memory = None if cache is None else cache.memory
        if memory is not None:
            (query,) = self._heads("memory_query", self._normed("memory_norm", x), 1)
            seen = valid_of(memory.steps, memory.keys.shape[1])[:, None]
            alpha = None
            if looks is not None:
                batch, time, heads, _ = query.shape
                alpha = np.zeros((batch, heads, time, memory.keys.shape[1]), np.float32)
                looks.append(alpha)
            everywhere = slice(None), seen
            found = attend(query, memory.keys, memory.values, lambda *_: everywhere, alpha)
            x = x + self._linear("memory_out", found)
        wide = gelu(self._linear("widen", self._normed("feedforward_norm", x)))
        x = x + self._linear("narrow", wide)
        return x, _kept(keys, values, memory, room, plan) if plan.final_state else None

    def _linear(self, name: str, x: Array) -> Array:
        mapped: Array = NUMPY.linear(x, *self._weights[name])
        return mapped

    def _normed(self, name: str, x: Array) -> Array:
        normed: Array = NUMPY.layer_norm(x, *self._weights[name])
        return normed

    def _heads(self, name: str, x: Array, parts: int) -> list[Array]:
        """Map x [B, T, .] to parts [B, T, H, E]."""
        spec, found = self._spec, self._linear(name, x)
        shape = (*found.shape[:2], spec.heads, spec.head_size)
        return [each.reshape(shape) for each in NUMPY.split(found, parts)]


def attend(
    query: Array, keys: Array, values: Array, allowed: Allowed, weights: Array | None = None
) -> Array:
    """Return softmax(Q K^T / sqrt(E) + mask) V [B, T, d]; zeros for a query that may look nowhere.

    query [B, T, H, E]; keys and values [B, S, H, E]. weights [B, H, T, S]: zeros, which become the
    softmax where they are given.
    """
    batch, time, heads, width = query.shape
    query = query.transpose(0, 2, 1, 3) * np.float32(1.0 / math.sqrt(width))
    keys, values = keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)
    found = np.empty((batch, time, heads, width), np.float32)
    together = max(1, LARGEST_SCORES // max(1, batch * heads * keys.shape[-1]))
    for start in range(0, time, together):
        stop = min(start + together, time)
        slots, mask = allowed(start, stop)
        scores = query[:, :, start:stop] @ keys[..., slots]
        if mask is not None:
            scores = np.where(mask[:, None], scores, -np.inf)
        # Nothing to look at leaves -inf everywhere: its weights become 0, not NaN.
        scores -= scores.max(axis=-1, keepdims=True, initial=_LOWEST)
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        total = np.where(total == 0, np.float32(1), total)
        mean = (scores @ values[:, :, slots]) / total
        if weights is not None:
            weights[:, :, start:stop, slots] = scores / total
        found[:, start:stop] = mean.transpose(0, 2, 1, 3)
    return found.reshape(batch, time, heads * width)


def _written(cache: KVCache, keys: Array, values: Array, plan: Plan) -> tuple[Array, Array]:
    """Return room [B, C, H, E] with the cache's keys and values and, behind them, the new ones."""
    room = cache.take_room() if isinstance(cache, GrowingCache) else None
    if room is None or room[0].shape[1] < plan.span:
        spare = SPARE_STEPS + plan.span // 2
        room = _copied(cache.keys, plan, spare), _copied(cache.values, plan, spare)
    rows, steps, slots = plan.written
    for held, new in zip(room, (keys, values)):
        held[rows, slots] = new[rows, steps]
    return room


def _copied(held: Array, plan: Plan, spare: int) -> Array:
    """Return room with what each row of `held` [B, S, H, E] keeps, and zeros."""
    batch, count, *head = held.shape
    room = np.zeros((batch, plan.span + spare, *head), np.float32)
    # Past what a row keeps another continuation of this state may have written.
    here = np.arange(count) < plan.filled[:, None]
    room[:, :count] = np.where(here[..., None, None], held, np.float32(0))
    return room


def _kept(
    keys: Array,
    values: Array,
    memory: KVCache | None,
    room: tuple[Array, Array] | None,
    plan: Plan,
) -> KVCache:
    """Return the next cache from the slots [B, span, H, E]."""
    new = plan.time if plan.valid is None else plan.valid.sum(axis=1)
    count, steps = plan.filled + new, plan.before + new
    drop = np.zeros_like(count)
    if plan.spec.kept_steps is not None:
        drop = np.maximum(count - plan.spec.kept_steps, 0)
    count = count - drop
    size = int(count.max(initial=0))
    if room is not None and (drop == drop[:1]).all():
        # What a window lets go of stays before the room, until the next copy.
        first = int(drop.max(initial=0))
        slots = slice(first, first + size)
        grown = GrowingCache(keys[:, slots], values[:, slots], steps, memory)
        grown.room = [(room[0][:, first:], room[1][:, first:])]
        return grown
    index = np.arange(size) + drop[:, None]
    here = (np.arange(size) < count[:, None])[..., None, None]
    rows, index = np.arange(len(index))[:, None], np.minimum(index, max(0, plan.span - 1))
    keys, values = (np.where(here, each[rows, index], np.float32(0)) for each in (keys, values))
    return KVCache(keys, values, steps, memory)


def valid_of(lengths: Array, time: int) -> Array:
    """Return [B, T] bool, true on each row's own steps."""
    valid: Array = np.arange(time) < lengths[:, None]
    return valid


def rotate(x: Array, cosine: Array, sine: Array) -> Array:
    """Turn the pairs (x_k, x_{k + E/2}) of x [B, T, H, E]; see `nn.blocks.rotate`."""
    left, right = NUMPY.split(x, 2)
    turned = [left * cosine - right * sine, left * sine + right * cosine]
    return np.concatenate(turned, axis=-1)


def waves_of(positions: Array, width: int) -> tuple[Array, Array]:
    """Return cosines and sines [..., width / 2] of positions, float32 from float64 angles."""
    radians = positions[..., None] * rates(width)
    return np.cos(radians).astype(np.float32), np.sin(radians).astype(np.float32)


def gelu(x: Array) -> Array:
    """Return x [...] gated by how far it is above 0: x Phi(x) in its tanh form.

    Source: Hendrycks, Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    inner: Array = np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x))
    return 0.5 * x * (1.0 + inner)
