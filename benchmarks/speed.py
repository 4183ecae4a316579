"""How fast two of the fits train, against scripts as a torch user would write them.

    python -m benchmarks.speed

The same batches in the same order, the same sizes, dropout, optimiser and clipping; in one process,
by turns, a few batches each. Needs HIDDENSTATE_DATA.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.recorded import record
from hiddenstate.job.families import family_of
from hiddenstate.job.prepared import Prepared
from hiddenstate.models import Batch
from hiddenstate.nn import clip_by_norm, detach
from hiddenstate.train import read_recipe

TURNS, BATCHES = 15, 6


class Language(nn.Module):
    """Embedding, recurrent layers, linear head; the state goes from window to window."""

    def __init__(
        self, cell: str, codes: int, embedding: int, hidden: int, layers: int, drop: float
    ):
        super().__init__()
        self.embedding = nn.Embedding(codes, embedding)
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.recurrent = kind(
            embedding, hidden, layers, batch_first=True, dropout=drop * (layers > 1)
        )
        self.dropout = nn.Dropout(drop)
        self.head = nn.Linear(hidden, codes)

    def loss(self, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        h, state = self.recurrent(self.embedding(batch.codes[..., 0]), state)
        logits = self.head(self.dropout(h))
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.targets[0].flatten())
        if isinstance(state, tuple):
            return loss, tuple(each.detach() for each in state)
        return loss, state.detach()


class Classifier(nn.Module):
    """A bidirectional network over packed series, mean pooling, linear head."""

    def __init__(
        self, cell: str, channels: int, hidden: int, classes: int, drop: float, noise: float
    ):
        super().__init__()
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.input_dropout, self.dropout = nn.Dropout(noise), nn.Dropout(drop)
        self.recurrent = kind(channels, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def loss(self, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        x = self.input_dropout(batch.numbers)
        packed = pack_padded_sequence(x, batch.lengths, batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        mean = self.dropout(h).sum(1) / batch.lengths[:, None]
        return functional.cross_entropy(self.head(mean), batch.targets[0]), state


def script_turn(model: Any, optimiser: Any, batches: Sequence[Batch], clip: float) -> float:
    """Return seconds for some steps of the script."""
    began, state = time.perf_counter(), None
    for batch in batches:
        loss, state = model.loss(batch, state)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
    return time.perf_counter() - began


def our_turn(model: Any, optimiser: Any, items: Sequence[Any], feed: Any, clip: float) -> float:
    """Return seconds for the same steps by the loop's own lines, the making of batches included."""
    began, state = time.perf_counter(), None
    for item in items:
        lost = model.losses(feed.batch(item, state))
        state = detach(lost.state) if feed.stateful else None
        optimiser.zero_grad(set_to_none=True)
        (lost.sums / lost.steps.clamp(min=1)).sum().backward()
        float(clip_by_norm(model.parameters(), clip).before)
        optimiser.step()
    return time.perf_counter() - began


def ratios(prepared: Prepared, script: Callable[[], nn.Module], turns: int) -> list[float]:
    """Return the script's seconds over ours, turn by turn, on batches of full size."""
    settings = prepared.recipe.train
    feed, _ = prepared.feeds()
    order = list(feed.order(settings, 1))
    model, peer = prepared.build(), script()
    found = []
    optimisers = [
        torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=settings.weight_decay)
        for m in (model, peer)
    ]
    model.train()
    peer.train()
    for turn in range(turns + 1):
        # The first windows of an epoch are shorter; every turn begins behind them.
        start = 1 + turn * BATCHES % max(len(order) - BATCHES, 1)
        items = order[start : start + BATCHES]
        ready = [feed.batch(item) for item in items]
        theirs = script_turn(peer, optimisers[1], ready, settings.clip_norm)
        ours = our_turn(model, optimisers[0], items, feed, settings.clip_norm)
        if turn:
            found.append(theirs / ours)
    return found


def language(data: Path) -> tuple[Prepared, Callable[[], nn.Module]]:
    recipe = read_recipe(None, {"tasks": ["lm"]})
    prepared = family_of(recipe.tasks).prepare(
        data / "tinyshakespeare/input.txt", recipe, lambda _: None
    )
    model = recipe.model
    codes = prepared.spec.schema.code_sizes[0]
    return (
        prepared,
        lambda: Language(
            model.cell,
            codes,
            model.embedding_size,
            model.hidden_size,
            model.layers,
            recipe.train.dropout,
        ),
    )


def vowels(data: Path) -> tuple[Prepared, Callable[[], nn.Module]]:
    folder = data / "japanese_vowels"
    files = sorted(folder.glob("*TRAIN*.ts")) or sorted(folder.glob("*rain*"))
    recipe = read_recipe(None, {"tasks": ["classify"]})
    prepared = family_of(recipe.tasks).prepare(files[0], recipe, lambda _: None)
    spec, model, train = prepared.spec, recipe.model, recipe.train
    return (
        prepared,
        lambda: Classifier(
            model.cell,
            len(spec.schema.number_names),
            model.hidden_size,
            len(spec.heads[0].classes),
            train.dropout,
            train.input_dropout,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=TURNS)
    turns = parser.parse_args().turns
    data = Path(os.environ["HIDDENSTATE_DATA"])
    rows = []
    for name, make in (("tinyshakespeare, lm", language), ("JapaneseVowels, classify", vowels)):
        prepared, script = make(data)
        recipe = prepared.recipe
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            found = ratios(prepared, script, turns)
            low, middle, high = statistics.quantiles(found, n=4)
            model = recipe.model
            shape = f"{model.cell} {model.hidden_size}, batch {recipe.train.batch_size}"
            rows.append([name, shape, threads, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"])
            print(rows[-1])
    record(
        "speed",
        "Training against an idiomatic torch.nn script",
        "python -m benchmarks.speed",
        ["task", "network", "threads", "script's time / ours", "quartiles"],
        rows,
        [
            f"{turns} turns of {BATCHES} optimiser steps each, by turns in one process; above 1 "
            "hiddenstate is faster. Our time includes the making of the padded batches, the script "
            "is handed them.",
        ],
    )


if __name__ == "__main__":
    main()
