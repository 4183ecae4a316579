"""Self-attention without torch: the layer of a TransformerSpec, with a cache grown in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact.transformer import KVCache, TransformerSpec
from hiddenstate.cells import NUMPY
from hiddenstate.errors import ShapeError
from hiddenstate.runtime.blocks import Block, Plan, valid_of
from hiddenstate.runtime.weights import Weights

Array = NDArray[Any]


class Transformer:
    """Runs the blocks of a TransformerSpec in float32, by the contract of a recurrent layer.

    State is a tuple over blocks of KVCaches; of a layer that reads both directions it is empty. A
    step looks at the cache, and neither computes nor copies anything of the past: the cache grows
    in place. Only where rows differ in what they let go of is a window copied at each step.
    """

    kernel = "numpy"

    def __init__(
        self, spec: TransformerSpec, given: Weights, prefix: str = "stack.layers.0."
    ) -> None:
        """Take the weights whose names begin with `prefix`; raises ArtifactError."""
        self.spec, self.output_size = spec, spec.size
        weights = {name: given.take(prefix + name, shape) for name, shape in spec.shapes().items()}
        self._project = weights.get("project.weight"), weights.get("project.bias")
        self._blocks = [Block(spec, weights, f"blocks.{k}.") for k in range(spec.blocks)]
        self._norm = weights["norm.weight"], weights["norm.bias"]

    @property
    def directions(self) -> tuple[Transformer, ...]:
        """Itself: there is one kernel to name, whichever way it reads."""
        return (self,)

    def initial_state(
        self, batch: int, memory: Array | None = None, lengths: Array | None = None
    ) -> tuple[KVCache, ...]:
        """Return the state of rows without steps, which read a memory [B, M, .] of lengths [B].

        What stands in the memory's padding, NaN too, changes nothing. Raises ShapeError.
        """
        spec = self.spec
        wanted = [] if spec.memory_size is None else [batch, spec.memory_size]
        if ([] if memory is None else [len(memory), *memory.shape[2:]]) != wanted:
            raise ShapeError(
                f"The memory given is {'None' if memory is None else list(memory.shape)}.",
                f"This transformer reads {'none' if not wanted else f'[{batch}, M, {wanted[1]}]'}.",
                "Give what the layer of the other sequence returned, where one is read.",
            )
        if not spec.causal:
            return ()
        nothing = np.zeros((batch, 0, spec.heads, spec.head_size), np.float32)
        steps = np.zeros(batch, np.int64)
        if memory is None:
            return tuple(KVCache(nothing, nothing, steps) for _ in self._blocks)
        time = memory.shape[1]
        counts = np.full(batch, time) if lengths is None else np.asarray(lengths, np.int64)
        memory = np.where(valid_of(counts, time)[..., None], memory, np.float32(0))
        return tuple(
            KVCache(nothing, nothing, steps, block.remember(memory, counts))
            for block in self._blocks
        )

    def run(
        self,
        h: Array,
        lengths: Array | None,
        state: Any | None,
        final_state: bool,
        looks: list[Array] | None = None,
    ) -> tuple[Array, Any]:
        """Run h [B, T, D]; return the output [B, T, d], 0 past a row's length, and the state.

        state: None for the first; what stands in h's padding changes nothing. Raises ShapeError.
        looks: gets each block's weights [B, H, T, M] over the memory, 0 in its padding
        """
        spec, batch, time = self.spec, *h.shape[:2]
        caches = self._checked(state, batch)
        valid = None
        if lengths is not None:
            valid = valid_of(np.asarray(lengths), time)
            h = np.where(valid[..., None], h, np.float32(0))
        plan = Plan.of(spec, (batch, time), valid, caches[0], final_state)
        if spec.input_size != spec.size:
            h = NUMPY.linear(h, *self._project)
        if spec.positions == "sinusoidal":
            h = h + plan.sinusoids()
        last = []
        for block, cache in zip(self._blocks, caches):
            h, kept = block.run(h, cache, plan, looks)
            last.append(kept)
        output = NUMPY.layer_norm(h, *self._norm)
        if valid is not None:
            output = np.where(valid[..., None], output, np.float32(0))
        if not final_state:
            return output, None
        return output, tuple(last) if spec.causal else ()

    def _checked(self, state: Any | None, batch: int) -> Sequence[KVCache | None]:
        spec, reads = self.spec, self.spec.memory_size is not None
        if not reads and (state is None or (not spec.causal and state == ())):
            return (None,) * spec.blocks
        row = [batch, spec.heads, spec.head_size]
        caches = state if isinstance(state, tuple) else ()
        fits = [
            isinstance(each, KVCache)
            and [len(each.keys), *each.keys.shape[2:]] == row
            and (each.memory is not None) == reads
            for each in caches
        ]
        if fits != [True] * (spec.blocks if spec.causal else 0):
            given = [list(each.keys.shape) for each in caches if isinstance(each, KVCache)]
            raise ShapeError(
                f"The state given is a {type(state).__name__} with KVCaches of keys {given}.",
                f"This transformer needs {spec.blocks} of them with keys [{batch}, S, "
                f"{spec.heads}, {spec.head_size}]{' and a memory' if reads else ''}."
                if spec.causal
                else "This transformer reads both directions, and nothing can be carried on.",
                "Give the state that it returned for the same rows, or initial_state's.",
            )
        return caches
