"""Attention: which of the kept steps to look at, and the weighted mean of what stands there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.errors import ShapeError, SpecError, nearest
from hiddenstate.nn.lengths import Ragged, checked_lengths

ATTENTIONS = ("additive", "dot", "general")


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Tensor | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Return softmax(Q K^T / sqrt(E) + mask) V [B, T, H, E], by torch's fused operator.

    query:   [B, T, H, E], H heads of width E
    keys:    [B, S, H, E], and values alike. They have to be finite where nobody may look, too
    allowed: bool, [B or 1, T or 1, S], True where a query may look; None = everywhere. A query that
             may look nowhere gets zeros
    causal:  query t sees keys 0 to t only; not together with `allowed`
    dropout: share of the weights dropped

    Source: Vaswani et al. 2017, eq. 1 (SPEC 5.5).
    """
    if keys.shape[1] == 0:
        return torch.zeros_like(query)
    some = mask = None
    if allowed is not None:
        some = allowed.any(-1, keepdim=True)
        # Not every engine behind the operator gives zeros where nothing is allowed.
        mask = (allowed | ~some).unsqueeze(1)
    output = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
    ).transpose(1, 2)
    return output if some is None else torch.where(some[..., None], output, 0.0)


def attention_weights(
    query: Tensor, keys: Tensor, allowed: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """Return alpha [B, H, T, S], the weights with which `attend` would take the values' mean."""
    if causal:
        allowed = query.new_ones(query.shape[1], keys.shape[1], dtype=torch.bool).tril()[None]
    scores = torch.einsum("bthe,bshe->bhts", query, keys) / math.sqrt(query.shape[-1])
    return masked_softmax(scores, None if allowed is None else allowed.unsqueeze(1))


def masked_softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Return softmax over the last axis where `allowed`, 0 elsewhere; all 0 if nothing is."""
    if allowed is None:
        return scores.softmax(-1)
    # The lowest finite score, not -inf: a row without anything must not become 0 / 0.
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return torch.where(allowed, scores.softmax(-1), 0.0)


class Source(NamedTuple):
    """What a decoder looks at, prepared once for all its steps.

    states: h [B, S, K], zeros in the padding
    keys:   [B, S, A], what scores are made of
    valid:  [B, S] bool, True on a row's own steps; None = all
    """

    states: Tensor
    keys: Tensor
    valid: Tensor | None


class Attention(nn.Module):
    """A recurrent decoder's look at the states of its source.

    e_tj = a(s_t, h_j);  alpha_t = softmax_j(e_t) over a row's own steps;  c_t = sum_j alpha_tj h_j

    kind:       "additive"  v . tanh(W_q s + W_k h + b)   (Bahdanau et al. 2014, appendix A.1.2)
                "dot"       s . h                         (Luong et al. 2015, eq. 8)
                "general"   s . W h
    query_size: width of s
    key_size:   K, width of h
    size:       A, width of the additive score; None = query_size
    coverage:   an additive score also sees how much was looked at each step before,
                + w_c sum_{t' < t} alpha_t'j inside tanh (See et al. 2017, eq. 11)

    Raises SpecError for another kind, a "dot" of unequal widths, coverage without "additive".

    >>> look = Attention("general", query_size=4, key_size=6)
    >>> source = look.read(torch.zeros(2, 9, 6), torch.tensor([9, 5]))
    >>> context, alpha = look(torch.zeros(2, 4), source)
    >>> context.shape, alpha.shape
    (torch.Size([2, 6]), torch.Size([2, 9]))
    """

    def __init__(
        self,
        kind: str,
        query_size: int,
        key_size: int,
        size: int | None = None,
        *,
        coverage: bool = False,
    ) -> None:
        super().__init__()
        _require_kind(kind, query_size, key_size, coverage)
        self.kind, self.query_size, self.key_size = kind, query_size, key_size
        if kind == "additive":
            size = size or query_size
            self.query = nn.Linear(query_size, size, bias=False)
            self.key = nn.Linear(key_size, size)
            self.score = nn.Linear(size, 1, bias=False)
        elif kind == "general":
            self.key = nn.Linear(key_size, query_size, bias=False)
        self.coverage = nn.Linear(1, size or query_size, bias=False) if coverage else None

    def read(self, states: Tensor, lengths: Tensor | None = None) -> Source:
        """Prepare the source's states [B, S, K] with lengths [B]; raises ShapeError.

        What stands in the padding, NaN too, changes nothing. A row of length 0 gets weights and a
        context of zeros.
        """
        if states.ndim != 3 or states.shape[2] != self.key_size:
            raise ShapeError(
                f"The source's states have shape {list(states.shape)}.",
                f"This Attention reads [B, S, {self.key_size}].",
                f"Build it with key_size={states.shape[-1]}, or give the states it was built for.",
            )
        lengths = checked_lengths(lengths, states)
        valid = None
        if lengths is not None:
            rows = Ragged.of(lengths, states.shape[1])
            states, valid = rows.clear(states), rows.valid
        return Source(states, states if self.kind == "dot" else self.key(states), valid)

    def forward(
        self, query: Tensor, source: Source, coverage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Look once, query [B, Q], or with every query of [B, T, Q].

        coverage: the sum of the weights given so far, [B, S] ([B, T, S]); None = zeros
        Returns the context [B, K] ([B, T, K]) and alpha [B, S] ([B, T, S]).
        """
        if query.ndim == 2:
            seen = None if coverage is None else coverage.unsqueeze(1)
            context, alpha = self(query.unsqueeze(1), source, seen)
            return context.squeeze(1), alpha.squeeze(1)
        valid = None if source.valid is None else source.valid.unsqueeze(1)
        alpha = masked_softmax(self._scores(query, source.keys, coverage), valid)
        return alpha @ source.states, alpha

    def _scores(self, query: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """Return e [B, T, S] from queries [B, T, Q] and keys [B, S, A]."""
        if self.kind != "additive":
            return query @ keys.transpose(1, 2)
        total = self.query(query).unsqueeze(2) + keys.unsqueeze(1)
        if self.coverage is not None and coverage is not None:
            total = total + self.coverage(coverage.unsqueeze(-1))
        scores: Tensor = self.score(total.tanh()).squeeze(-1)
        return scores

    def extra_repr(self) -> str:
        """Return what print(module) shows."""
        return f"{self.kind!r}, query_size={self.query_size}, key_size={self.key_size}"


def _require_kind(kind: str, query_size: int, key_size: int, coverage: bool) -> None:
    if kind not in ATTENTIONS:
        raise SpecError(
            f"There is no attention {kind!r}.",
            f"hiddenstate knows {', '.join(ATTENTIONS)}.",
            f"Choose one of them.{nearest(kind, ATTENTIONS)}",
        )
    if kind == "dot" and query_size != key_size:
        raise SpecError(
            f"Attention 'dot' got queries of width {query_size} and keys of width {key_size}.",
            "A dot product needs equal widths.",
            "Use 'general', which brings the keys to the queries' width, or equal sizes.",
        )
    if coverage and kind != "additive":
        raise SpecError(
            f"Attention {kind!r} got coverage=True.",
            "Coverage is a term of the additive score.",
            "Use 'additive', or leave coverage out.",
        )
