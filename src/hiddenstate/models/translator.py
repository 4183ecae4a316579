"""The translator in torch: what a TranslatorSpec describes, ready to be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.artifact.translator import TranslatorSpec
from hiddenstate.cells.cell import Scheme
from hiddenstate.models.batch import Losses, Trainable
from hiddenstate.models.sequence import Regularisation, layer_of
from hiddenstate.nn import Dropout, Recurrent, Stack, drawn_once
from hiddenstate.nn.attention import Attention, Source
from hiddenstate.nn.lengths import Ragged
from hiddenstate.nn.losses import cross_entropy
from hiddenstate.nn.transformer import Transformer

# First weights of the embeddings lie within this bound (Luong et al. 2015, section 4.1). The
# target's is also the last matrix, so that log probabilities begin nearly equal.
WIDEST_EMBEDDING = 0.1


@dataclass(frozen=True)
class PairBatch:
    """Padded pairs: codes of the source [B, S] and the target [B, M], and their lengths [B]."""

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor

    @property
    def events(self) -> int:
        """Symbols to predict: those of the targets, and an end for each."""
        return int(self.target_lengths.sum()) + len(self.target_lengths)

    def to(self, device: torch.device) -> PairBatch:
        """Return the batch with its tensors on a device."""
        return PairBatch(
            self.source.to(device),
            self.source_lengths.to(device),
            self.target.to(device),
            self.target_lengths.to(device),
        )


class Read(NamedTuple):
    """What the decoder knows of a source.

    end [B, P] is the one vector of a fixed context, first the decoder's first state, source what
    attention looks at (None where there is no attention but a transformer's own).
    """

    end: Tensor
    first: tuple[Any, ...]
    source: Source | None


class Translator(Trainable):
    """Encoder, decoder and what stands between them.

    Where a step needs nothing of the step before but the state (no additive attention, input
    feeding or scheduled sampling), the decoder runs over all target steps in one call of a kernel.
    """

    def __init__(
        self,
        spec: TranslatorSpec,
        regularisation: Regularisation | None = None,
        kernel: str | None = None,
        init: Scheme = "orthogonal",
        own_share: Callable[[float], float] | None = None,
    ) -> None:
        """Draw first weights by torch's random generator; `init` is a scheme of `Cell.init`.

        own_share: how many of the symbols fed to the decoder in training are its own guesses, by
                   the share of training that is done; None: none, which is teacher forcing
        """
        super().__init__()
        noise = regularisation or Regularisation()
        self.spec, self.own_share = spec, own_share
        self.source_embedding, self.target_embedding = (
            nn.Embedding(rows, width) for rows, width in zip(spec.embedding_rows, spec.embeddings)
        )
        one_way = partial(Recurrent, dropconnect=noise.dropconnect, kernel=kernel, init=init)
        self.encoder, self.decoder = (
            Stack(
                [layer_of(layer, one_way, noise.dropout) for layer in layers],
                dropout=noise.dropout,
                input_dropout=noise.input_dropout,
                variational=noise.variational,
            )
            for layers in (spec.encoder, spec.decoder)
        )
        width = self.decoder.output_size
        if spec.cells:
            self.bridge = nn.Linear(spec.memory_size, sum(spec.first_state_sizes))
        if spec.attends:
            self.attention = Attention(
                spec.context, width, spec.memory_size, coverage=spec.coverage
            )
        self.readout = nn.Linear(width + spec.context_size, spec.embeddings[1])
        self.readout_dropout, self.output_dropout = (
            Dropout(noise.dropout, variational=noise.variational) for _ in range(2)
        )
        tables = [self.source_embedding.weight, self.target_embedding.weight]
        if not spec.tied:
            self.output_weight = nn.Parameter(torch.empty_like(tables[1]))
            tables.append(self.output_weight)
        self.output_bias = nn.Parameter(torch.zeros(spec.embedding_rows[1]))
        for table in tables:
            nn.init.uniform_(table, -WIDEST_EMBEDDING, WIDEST_EMBEDDING)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernel that ran each layer last, the encoder's before the decoder's."""
        layers = (m for m in self.modules() if isinstance(m, Recurrent | Transformer))
        return tuple(str(layer.last_kernel) for layer in layers)

    def losses(self, batch: PairBatch, label_smoothing: float = 0.0) -> Losses:
        """Return the summed cross entropy in nats of all target symbols and ends, and their count.

        label_smoothing: probability spread evenly over all symbols
        """
        boundary = self.spec.boundary
        inputs = functional.pad(batch.target, (1, 0), value=boundary)
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        lengths = batch.target_lengths[:, None]
        outputs = functional.pad(batch.target, (0, 1)).masked_fill(steps == lengths, boundary)
        # Only real steps are scored: padding costs no product with the large last matrix.
        real = steps <= lengths
        scores = self.scores(self(batch.source, batch.source_lengths, inputs)[real])
        summed = cross_entropy(
            scores, outputs[real], label_smoothing=label_smoothing, reduction="sum"
        )
        return Losses(summed[None], real.sum()[None])

    def forward(self, source: Tensor, source_lengths: Tensor, inputs: Tensor) -> Tensor:
        """Return a_t [B, T, E] for source codes [B, S] and the decoder's inputs [B, T].

        In training some inputs give way to the model's own guesses, as `own_share(done)` says.
        """
        read = self.read(source, source_lengths)
        own = self.own_share(self.done) if self.own_share and self.training else 0.0
        if self.spec.stepwise or own:
            with drawn_once(self):
                return torch.stack(list(self._stepwise(inputs, read, own)), 1)
        x = self._input(self.target_embedding(inputs), read)
        h, _ = self.decoder(x, None, read.first, False)
        context = self.attention(h, read.source)[0] if self.spec.attends else None
        return self._read_out(h, read, context)

    def scores(self, states: Tensor) -> Tensor:
        """Return o_t [..., V + 1] of a_t [..., E]."""
        table = self.target_embedding.weight if self.spec.tied else self.output_weight
        return functional.linear(states, table, self.output_bias)

    def read(self, codes: Tensor, lengths: Tensor) -> Read:
        """Encode source codes [B, S] of lengths [B], each at least 1."""
        rows = Ragged.of(lengths, codes.shape[1])
        if self.spec.reverse_source:
            codes = rows.reverse(codes[..., None]).squeeze(-1)
        memory, _ = self.encoder(self.source_embedding(codes), lengths, None, False)
        ahead = self.spec.forward_size
        last = rows.last(memory[..., :ahead], memory[:, 0, :ahead])
        end = torch.cat([last, memory[:, 0, ahead:]], -1)
        if not self.spec.cells:
            transformer: Any = self.decoder.layers[0]
            return Read(end, (transformer.initial_state(memory, lengths),), None)
        arrays = iter(torch.split(torch.tanh(self.bridge(end)), self.spec.first_state_sizes, -1))
        first = (
            cell.State(*(next(arrays) for _ in cell.state_shapes())) for cell in self.spec.cells
        )
        source = self.attention.read(memory, lengths) if self.spec.attends else None
        return Read(end, tuple(first), source)

    def _input(self, embedded: Tensor, read: Read, *more: Tensor) -> Tensor:
        """Put the decoder's input [B, T, D] together."""
        parts = [embedded, *more]
        if self.spec.context == "every_step":
            parts.append(read.end[:, None].expand(-1, embedded.shape[1], -1))
        return torch.cat(parts, -1)

    def _read_out(self, h: Tensor, read: Read, context: Tensor | None) -> Tensor:
        """Return a_t [B, T, E] of s_t and c_t [B, T, .]."""
        if self.spec.context == "every_step":
            context = read.end[:, None].expand(-1, h.shape[1], -1)
        both = h if context is None else torch.cat([h, context], -1)
        said: Tensor = self.output_dropout(torch.tanh(self.readout(self.readout_dropout(both))))
        return said

    def _stepwise(self, inputs: Tensor, read: Read, own_share: float) -> Iterator[Tensor]:
        """Yield a_t [B, E] of one step after another."""
        spec, (batch, time), state = self.spec, inputs.shape, read.first
        said, covered = read.end.new_zeros(batch, 1, spec.embeddings[1]), None
        for t in range(time):
            fed = inputs[:, t]
            if t and own_share:
                guess = self.scores(said[:, 0].detach()).argmax(-1)
                fed = torch.where(torch.rand(batch, device=fed.device) < own_share, guess, fed)
            more, context = [said] if spec.input_feeding else [], None
            if spec.context == "additive":
                asked = spec.cells[-1].read(state[-1])
                context, alpha = self.attention(asked[:, None], read.source, covered)
                if spec.coverage:
                    covered = alpha if covered is None else covered + alpha
                more.append(context)
            x = self._input(self.target_embedding(fed)[:, None], read, *more)
            h, state = self.decoder(x, None, state)
            if context is None and spec.attends:
                context, _ = self.attention(h, read.source)
            said = self._read_out(h, read, context)
            yield said[:, 0]
