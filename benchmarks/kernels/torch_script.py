"""A next-event model trained the way a torch user would write it; what `fit` is compared with.

Plain torch.nn with packed sequences, on histories that are encoded already. Buckets, batches and
recipe are those of `hiddenstate fit`, so that only the speed differs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

IGNORED = -1


class Histories(NamedTuple):
    """Cases: codes [T] and targets [T] of each (IGNORED: nothing to learn), weights [C]."""

    codes: Sequence[Tensor]
    targets: Sequence[Tensor]
    weights: Tensor


@dataclass(frozen=True)
class Recipe:
    """Sizes of the network and settings of the training."""

    codes: int
    embedding_size: int
    hidden_size: int
    classes: int
    longest: int
    patience: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip_norm: float
    dropout: float
    input_dropout: float
    seed: int


class Network(nn.Module):
    """Embedding, GRU, linear head."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        hidden = recipe.hidden_size
        self.embedding = nn.Embedding(recipe.codes, recipe.embedding_size)
        self.input_dropout = nn.Dropout(recipe.input_dropout)
        self.gru = nn.GRU(recipe.embedding_size, hidden, batch_first=True)
        self.dropout = nn.Dropout(recipe.dropout)
        self.head = nn.Linear(hidden, recipe.classes)
        with torch.no_grad():
            for block in self.gru.weight_hh_l0.chunk(3):
                nn.init.orthogonal_(block)
            nn.init.xavier_uniform_(self.gru.weight_ih_l0)
            nn.init.zeros_(self.gru.bias_ih_l0)
            nn.init.zeros_(self.gru.bias_hh_l0)
            # The update gate starts out keeping the state for as long as histories are.
            lags = torch.empty(hidden).uniform_(1.0, recipe.longest - 1.0)
            self.gru.bias_ih_l0[hidden : 2 * hidden] = lags.log()

    def forward(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """Return logits [B, T, V] of codes [B, T]; those past a row's length mean nothing."""
        x = self.input_dropout(self.embedding(codes))
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return self.head(self.dropout(h))


def losses(network: Network, part: Histories, cases: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """Return the weighted sum of the losses of some cases, the steps behind it and all steps."""
    codes = [part.codes[case] for case in cases]
    lengths = torch.tensor([len(each) for each in codes])
    target = pad_sequence([part.targets[case] for case in cases], True, IGNORED)
    logits = network(pad_sequence(codes, batch_first=True), lengths)
    each = functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), reduction="none", ignore_index=IGNORED
    )
    weighted = each.view(target.shape) * part.weights[cases][:, None]
    return weighted.sum(), (target != IGNORED).sum(), int(lengths.sum())


def train(
    recipe: Recipe,
    training: Histories,
    validation: Histories,
    batches: Sequence[Sequence[Sequence[int]]],
    validation_batches: Sequence[Sequence[int]],
) -> Iterator[tuple[float, float]]:
    """Train and yield (seconds so far, validation loss) after every epoch.

    batches: the cases of every batch of every epoch
    """
    torch.manual_seed(recipe.seed)
    network = Network(recipe)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    total = sum(map(len, batches))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate(min(step / total, 1.0), recipe.warmup)
    )
    events = sum(len(each) for each in training.codes)
    best, best_epoch, began = math.inf, 0, time.perf_counter()
    for epoch, order in enumerate(batches, start=1):
        network.train()
        usual = events / len(order)
        for cases in order:
            total_loss, steps, size = losses(network, training, cases)
            objective = total_loss / steps.clamp(min=1) * (size / usual)
            optimiser.zero_grad(set_to_none=True)
            objective.backward()
            clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimiser.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            parts = [losses(network, validation, cases) for cases in validation_batches]
        loss = float(sum(part[0] for part in parts) / sum(part[1] for part in parts))
        yield time.perf_counter() - began, loss
        if loss < best:
            best, best_epoch = loss, epoch
        if epoch - best_epoch >= recipe.patience:
            return


def rate(done: float, warmup: float) -> float:
    """Return the share of the highest learning rate: linear warm-up, then a cosine."""
    if done < warmup:
        return 0.05 + 0.95 * done / warmup
    share = (done - warmup) / (1 - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
