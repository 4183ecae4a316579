"""A block of a transformer, and the plan of one run that all blocks share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.artifact.transformer import KVCache, TransformerSpec, rates
from hiddenstate.nn.attention import attend, attention_weights
from hiddenstate.nn.dropout import Dropout
from hiddenstate.nn.lengths import Ragged


class Looks(NamedTuple):
    """Where a traced block looked, in the place of a cell's gates; rows sum to 1, or are 0.

    own:    alpha [B, H, T, S] over its own steps: those kept from before, then the T new ones
    memory: alpha [B, H, T, M] over the other sequence; None where the block reads none
    """

    own: Tensor
    memory: Tensor | None


class Kept(NamedTuple):
    """What of the slots [old | new] goes into the next cache.

    source [B, S]: the slot of each entry; filled [B, S] bool: False is left as 0; steps [B]
    """

    source: Tensor
    filled: Tensor
    steps: Tensor


class Plan(NamedTuple):
    """How T new steps stand behind the S that the cache holds, the same for every block.

    positions [B or 1, T]:        each new step's number in its row
    order [B, S + T]:             for every slot its place in [old | new], so that each row's new
                                  steps follow its own last one; None = as they are
    allowed [B or 1, T, S + T]:   which slots a step sees; None = all, if `causal` no later one
    waves:                        cosines and sines [B or 1, T, 1, E / 2] by which queries and keys
                                  are turned; None unless positions are rotary
    seen [B, 1, M]:               real steps of the memory; None where there is none
    valid [B, T]:                 real new steps; None = all
    kept:                         what the next cache holds; None = not asked for
    """

    positions: Tensor
    order: Tensor | None
    allowed: Tensor | None
    causal: bool
    waves: tuple[Tensor, Tensor] | None
    seen: Tensor | None
    valid: Tensor | None
    kept: Kept | None

    @staticmethod
    def of(
        spec: TransformerSpec,
        x: Tensor,
        rows: Ragged | None,
        cache: KVCache | None,
        *,
        final_state: bool,
    ) -> Plan:
        """Plan a run over x [B, T, D], on from a cache (of any block), or from the beginning."""
        (batch, time, _), device = x.shape, x.device
        new = torch.arange(time, device=device)[None]
        held = 0 if cache is None else cache.keys.shape[1]
        before = new.new_zeros(batch) if cache is None else cache.steps
        filled = before if spec.kept_steps is None else before.clamp(max=spec.kept_steps)
        order = allowed = seen = kept = None
        if not spec.causal:
            allowed = None if rows is None else rows.valid[:, None]
        elif held or spec.window_steps is not None:
            slots = torch.arange(held + time, device=device)[None]
            if held:
                first = filled[:, None]
                # A slot past a row's new steps repeats the last: nobody sees it.
                order = torch.where(slots < first, slots, slots - first + held)
                order = order.clamp(max=held + time - 1)
            back = (filled[:, None] if held else 0) + new
            back = back[..., None] - slots[:, None]
            allowed = back >= 0
            if spec.window_steps is not None:
                allowed &= back < spec.window_steps
        if final_state and spec.causal:
            kept = _kept(spec, rows, before, filled, time)
        positions = new if cache is None else before[:, None] + new
        waves = None
        if spec.positions == "rotary":
            cosine, sine = _waves(positions, spec.head_size, x)
            waves = cosine[:, :, None], sine[:, :, None]
        if cache is not None and cache.memory is not None:
            slots = torch.arange(cache.memory.keys.shape[1], device=device)
            seen = (slots < cache.memory.steps[:, None])[:, None]
        causal = spec.causal and allowed is None
        valid = None if rows is None else rows.valid
        return Plan(positions, order, allowed, causal, waves, seen, valid, kept)

    def sinusoids(self, x: Tensor) -> Tensor:
        """Return what tells each step's position, sin and cos by turns, as wide as x [B, T, d]."""
        cosine, sine = _waves(self.positions, x.shape[-1], x)
        return torch.stack([sine, cosine], -1).flatten(-2)


class Block(nn.Module):
    """Self-attention, a look at the memory where there is one, and a feed-forward part."""

    def __init__(self, spec: TransformerSpec, dropout: float) -> None:
        super().__init__()
        size, self.heads, self.head_size = spec.size, spec.heads, spec.head_size
        self.norm = nn.LayerNorm(size)
        self.query_key_value = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        if spec.memory_size is not None:
            self.memory_norm = nn.LayerNorm(size)
            self.memory_query = nn.Linear(size, size)
            self.memory_key_value = nn.Linear(spec.memory_size, 2 * size)
            self.memory_out = nn.Linear(size, size)
        self.feedforward_norm = nn.LayerNorm(size)
        self.widen = nn.Linear(size, spec.feedforward)
        self.narrow = nn.Linear(spec.feedforward, size)
        self.dropout = Dropout(dropout)

    def remember(self, memory: Tensor, lengths: Tensor) -> KVCache:
        """Return the keys and values of a memory [B, M, .] of lengths [B], made once."""
        keys, values = self._heads(self.memory_key_value(memory), 2)
        return KVCache(keys, values, lengths)

    def forward(
        self, x: Tensor, cache: KVCache | None, plan: Plan, *, traced: bool
    ) -> tuple[Tensor, KVCache | None, Looks | None]:
        """Return the output [B, T, d], the next cache if it was planned, Looks if traced."""
        query, keys, values = self._heads(self.query_key_value(self.norm(x)), 3)
        if plan.waves is not None:
            query, keys = rotate(query, *plan.waves), rotate(keys, *plan.waves)
        if cache is not None and plan.order is not None:
            keys = _take(torch.cat([cache.keys, keys], 1), plan.order)
            values = _take(torch.cat([cache.values, values], 1), plan.order)
        found, own = self._look(query, keys, values, plan.allowed, plan.causal, traced)
        x = x + self.dropout(self.out(found))
        memory, elsewhere = None if cache is None else cache.memory, None
        if memory is not None:
            (query,) = self._heads(self.memory_query(self.memory_norm(x)), 1)
            found, elsewhere = self._look(
                query, memory.keys, memory.values, plan.seen, False, traced
            )
            x = x + self.dropout(self.memory_out(found))
        wide = functional.gelu(self.widen(self.feedforward_norm(x)), approximate="tanh")
        x = x + self.dropout(self.narrow(self.dropout(wide)))
        after = looks = None
        if plan.kept is not None:
            source, filled, steps = plan.kept
            keys, values = (
                torch.where(filled[..., None, None], _take(each, source), 0.0)
                for each in (keys, values)
            )
            after = KVCache(keys, values, steps, memory)
        if own is not None:
            looks = Looks(_clear(own, plan), None if elsewhere is None else _clear(elsewhere, plan))
        return x, after, looks

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Cut x [B, T, parts * d] into parts [B, T, H, E]."""
        return x.view(*x.shape[:2], parts, self.heads, self.head_size).unbind(2)

    def _look(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor | None,
        causal: bool,
        traced: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what was found [B, T, d], and the weights if traced."""
        if traced:
            alpha = attention_weights(query, keys, allowed, causal=causal)
            return torch.einsum("bhts,bshe->bthe", alpha, values).flatten(2), alpha
        share = self.dropout.share if self.training else 0.0
        return attend(query, keys, values, allowed, causal=causal, dropout=share).flatten(2), None


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs (x_k, x_{k + E/2}) of x [B, T, H, E] by the angles of their positions.

    The product of a turned query and a turned key knows the positions by their difference only.
    Source: Su et al. 2021 (arXiv:2104.09864), eq. 34.
    """
    left, right = x.chunk(2, -1)
    turned = [left * cosine - right * sine, left * sine + right * cosine]
    return torch.cat(turned, -1).to(x.dtype)


def _waves(positions: Tensor, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    # In float64: at position 100000 the angles of float32 are wrong in the third digit.
    radians = positions[..., None] * torch.as_tensor(rates(width), device=like.device)
    return radians.cos().to(like.dtype), radians.sin().to(like.dtype)


def _kept(
    spec: TransformerSpec, rows: Ragged | None, before: Tensor, filled: Tensor, time: int
) -> Kept:
    new = time if rows is None else rows.lengths
    drop = torch.zeros_like(filled)
    if spec.kept_steps is not None:
        drop = (filled + new - spec.kept_steps).clamp(min=0)
    count = filled + new - drop
    slots = torch.arange(int(count.max()) if len(count) else 0, device=count.device)
    here = slots < count[:, None]
    return Kept(torch.where(here, slots + drop[:, None], 0), here, before + new)


def _take(slots: Tensor, index: Tensor) -> Tensor:
    """Return [B, N, H, E], the entries of [B, S, H, E] at index [B, N]."""
    batch, count = index.shape
    flat = index + slots.shape[1] * torch.arange(batch, device=index.device)[:, None]
    taken = slots.flatten(2).flatten(0, 1).index_select(0, flat.flatten())
    return taken.view(batch, count, *slots.shape[2:])


def _clear(alpha: Tensor, plan: Plan) -> Tensor:
    """Return alpha [B, H, T, S] with zeros for the queries of the padding."""
    return alpha if plan.valid is None else torch.where(plan.valid[:, None, :, None], alpha, 0.0)
