"""A transformer against torch.nn's encoder and decoder blocks, which torch 2.13 computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn.transformer import Transformer
from tests.laws.transformer_cases import LENGTHS, MEMORY_LENGTHS, M, T, case_of, spec_of

EXACT = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mapped(ours: Transformer, theirs: nn.Module, parts: dict[str, str]) -> None:
    """Give torch's blocks the weights of ours, by the names of their parts."""
    weights = {}
    for key, value in ours.state_dict().items():
        part, kind = key.rsplit(".", 1)
        block, _, name = part.rpartition(".")
        if part in ("norm", "project"):
            continue
        if name.startswith("memory") and name != "memory_norm" and name != "memory_out":
            continue
        joined = "_" if parts[name].endswith("in_proj") else "."
        weights[f"{block.removeprefix('blocks.')}.{parts[name]}{joined}{kind}"] = value
    for index, block in enumerate(ours.blocks if ours.spec.memory_size else ()):
        for kind in ("weight", "bias"):
            pair = [getattr(block.memory_query, kind), getattr(block.memory_key_value, kind)]
            weights[f"{index}.multihead_attn.in_proj_{kind}"] = torch.cat(pair).detach()
    theirs.load_state_dict(weights)


SELF = {"norm": "norm1", "query_key_value": "self_attn.in_proj", "out": "self_attn.out_proj"}
OTHER = {"memory_norm": "norm2", "memory_out": "multihead_attn.out_proj"}
LAST = {"widen": "linear1", "narrow": "linear2"}


def tanh_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


@pytest.mark.parametrize("causal", [True, False])
def test_blocks_are_torchs_encoder(causal: bool) -> None:
    case = case_of(spec_of(positions="none", size=8, input_size=8, causal=causal))
    blocks = nn.ModuleList(
        nn.TransformerEncoderLayer(8, 2, 12, 0.0, tanh_gelu, batch_first=True, norm_first=True)
        for _ in range(2)
    )
    mapped(case.layer, blocks, {**SELF, **LAST, "feedforward_norm": "norm2"})
    x = case.x
    # A row without steps is not defined in torch.
    lengths = LENGTHS.clamp(min=1)
    padding = torch.arange(T) >= lengths[:, None]
    later = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    for block in blocks:
        x = block(x, src_mask=later, src_key_padding_mask=padding, is_causal=causal)
    wanted = case.layer.norm(x)[~padding]
    torch.testing.assert_close(case.layer(case.x, lengths)[0][~padding], wanted, **EXACT)


def test_blocks_with_a_memory_are_torchs_decoder() -> None:
    case = case_of(spec_of(positions="none", size=8, input_size=8, memory_size=8))
    blocks = nn.ModuleList(
        nn.TransformerDecoderLayer(8, 2, 12, 0.0, tanh_gelu, batch_first=True, norm_first=True)
        for _ in range(2)
    )
    mapped(case.layer, blocks, {**SELF, **OTHER, **LAST, "feedforward_norm": "norm3"})
    assert case.memory is not None
    lengths = MEMORY_LENGTHS.clamp(min=1)
    x, first = case.x, case.layer.initial_state(case.memory, lengths)
    for block in blocks:
        x = block(
            x,
            case.memory,
            tgt_mask=torch.ones(T, T, dtype=torch.bool).triu(1),
            tgt_is_causal=True,
            memory_key_padding_mask=torch.arange(M) >= lengths[:, None],
        )
    torch.testing.assert_close(case.layer(case.x, None, first)[0], case.layer.norm(x), **EXACT)
