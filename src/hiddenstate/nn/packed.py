"""torch's PackedSequence at the door: unpacked on the way in, packed alike on the way out."""

from __future__ import annotations

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """Return x [B, T, D] and lengths [B] in the order before packing."""
    x, lengths = pad_packed_sequence(packed, batch_first=True)
    return x, lengths


def pack_like(output: Tensor, lengths: Tensor, like: PackedSequence) -> PackedSequence:
    """Return output [B, T, P] packed in the very order of `like`."""
    if like.sorted_indices is not None:
        output = output.index_select(0, like.sorted_indices)
        lengths = lengths.index_select(0, like.sorted_indices.to(lengths.device))
    flat = pack_padded_sequence(output, lengths, batch_first=True).data
    return PackedSequence(flat, like.batch_sizes, like.sorted_indices, like.unsorted_indices)
