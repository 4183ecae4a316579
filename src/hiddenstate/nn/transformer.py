"""Self-attention under the contract of a recurrent layer: x and a state in, output and state out.

The state is a cache of keys and values that grows with every step, or up to a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hiddenstate.artifact.transformer import KVCache, TransformerSpec
from hiddenstate.errors import ShapeError
from hiddenstate.kernels import Scan
from hiddenstate.nn.blocks import Block, Plan
from hiddenstate.nn.layer import Layer
from hiddenstate.nn.lengths import Ragged, checked_lengths


class Transformer(Layer):
    """Runs the blocks of a TransformerSpec over x [B, T, D]; see `Layer.forward`.

    State is a tuple over blocks of KVCaches; of a layer that reads both directions it is empty, and
    cannot be carried on. A layer with a memory starts from `initial_state(memory, lengths)`. What a
    row keeps has to be finite: unlike a cell, attention spreads a NaN to the row's earlier steps.

    dropout: share dropped of the attention's weights, inside the feed-forward part, and of what
             each part adds

    `trace` gives one Scan for each block, with its output [B, T, d] and `Looks` as gates.

    >>> layer = Transformer(TransformerSpec(3, size=8, blocks=2, heads=2, feedforward=16))
    >>> output, state = layer(torch.zeros(4, 9, 3))
    >>> output.shape, state[0].keys.shape
    (torch.Size([4, 9, 8]), torch.Size([4, 9, 2, 4]))
    """

    def __init__(self, spec: TransformerSpec, dropout: float = 0.0) -> None:
        """Draw first weights by torch's random generator."""
        super().__init__()
        self.spec = spec
        self.input_size, self.output_size = spec.input_size, spec.size
        self.last_kernel = "torch"
        self.project = None
        if spec.input_size != spec.size:
            self.project = nn.Linear(spec.input_size, spec.size)
        self.blocks = nn.ModuleList(Block(spec, dropout) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.size)
        self._draw()

    def _draw(self) -> None:
        """Keep the variance of what each linear map is given, and of the sum over all blocks.

        The second by a smaller last map in each part (Radford et al. 2019, section 2.3).
        """
        parts = self.spec.blocks * (2 if self.spec.memory_size is None else 3)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                shrink = math.sqrt(parts) if name.endswith(("out", "narrow")) else 1.0
                nn.init.normal_(module.weight, std=1.0 / (shrink * math.sqrt(module.in_features)))
                nn.init.zeros_(module.bias)

    def initial_state(self, memory: Tensor, lengths: Tensor | None = None) -> tuple[KVCache, ...]:
        """Return the state of rows without steps that read a memory [B, M, .] of lengths [B].

        What stands in the memory's padding, NaN too, changes nothing. Raises ShapeError.
        """
        width = self.spec.memory_size
        if width is None or memory.ndim != 3 or memory.shape[2] != width:
            raise ShapeError(
                f"A memory of shape {list(memory.shape)} was given.",
                "This Transformer reads no memory."
                if width is None
                else f"This Transformer reads [B, M, {width}].",
                "Build it with the memory_size of what it shall read.",
            )
        batch, time, _ = memory.shape
        lengths = checked_lengths(lengths, memory)
        if lengths is None:
            lengths = torch.full((batch,), time, device=memory.device)
        else:
            memory = Ragged.of(lengths, time).clear(memory)
        nothing = memory.new_zeros(batch, 0, self.spec.heads, self.spec.head_size)
        steps = torch.zeros_like(lengths)
        blocks = cast("Sequence[Block]", self.blocks)
        return tuple(
            KVCache(nothing, nothing, steps, block.remember(memory, lengths)) for block in blocks
        )

    def run(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: Any | None,
        *,
        final_state: bool = True,
        scans: list[Scan] | None = None,
    ) -> tuple[Tensor, Any]:
        """Compute `forward` on checked x and lengths; append the blocks' Scans to `scans`."""
        self._require_type(x)
        caches = self._checked(state, x.shape[0])
        rows = None if lengths is None else Ragged.of(lengths, x.shape[1])
        if rows is not None:
            x = rows.clear(x)
        plan = Plan.of(self.spec, x, rows, caches[0], final_state=final_state)
        if self.project is not None:
            x = self.project(x)
        if self.spec.positions == "sinusoidal":
            x = x + plan.sinusoids(x)
        last = []
        for block, cache in zip(cast("Sequence[Block]", self.blocks), caches):
            x, kept, looks = block(x, cache, plan, traced=scans is not None)
            last.append(kept)
            if scans is not None:
                scans.append(Scan(x if rows is None else rows.clear(x), kept, looks))
        output = self.norm(x)
        if rows is not None:
            output = rows.clear(output)
        if not final_state:
            return output, None
        return output, tuple(last) if self.spec.causal else ()

    def _require_type(self, x: Tensor) -> None:
        held = self.norm.weight.dtype
        if x.dtype != held and not torch.is_autocast_enabled(x.device.type):
            raise ShapeError(
                f"x {list(x.shape)} is of type {x.dtype}.",
                f"This layer's parameters are of type {held}.",
                f"Convert one of them: x.to({held}) or layer.to({x.dtype}).",
            )

    def _checked(self, state: Any | None, batch: int) -> Sequence[KVCache | None]:
        spec = self.spec
        reads = spec.memory_size is not None
        if not reads and (state is None or (not spec.causal and state == ())):
            return (None,) * spec.blocks
        row = [spec.heads, spec.head_size]
        if (
            not spec.causal
            or not isinstance(state, tuple)
            or len(state) != spec.blocks
            or not all(isinstance(each, KVCache) for each in state)
            or any([len(k.keys), *k.keys.shape[2:]] != [batch, *row] for k in state)
            or any((each.memory is not None) != reads for each in state)
        ):
            raise ShapeError(
                f"The state given is {_told(state)}.",
                f"This Transformer and {batch} rows of x need {spec.blocks} KVCaches with keys "
                f"[{batch}, S, {row[0]}, {row[1]}]{' and a memory' if reads else ''}."
                if spec.causal
                else "This Transformer reads both directions, and nothing can be carried on.",
                "Give the state that it returned for the same rows, or "
                + ("initial_state(memory, lengths)." if reads else "None."),
            )
        return state


def _told(state: Any) -> str:
    """Say in words what was given as a state."""
    if isinstance(state, tuple) and all(isinstance(each, KVCache) for each in state):
        return f"{len(state)} KVCaches, keys " + ", ".join(str(list(k.keys.shape)) for k in state)
    return f"{len(state)} parts" if isinstance(state, tuple) else type(state).__name__
