"""Truncated backpropagation through time: what is counted, carried, cut and never mixed up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hiddenstate.artifact import HeadSpec, LayerSpec, ModelSpec, TransformerSpec
from hiddenstate.cells import build
from hiddenstate.models import SequenceModel
from hiddenstate.nn import detach
from hiddenstate.schema import Symbols
from hiddenstate.schema.documents import BOUNDARY, TextCodes
from hiddenstate.train import read_recipe
from hiddenstate.train.recipe import Train
from hiddenstate.train.windows import Window, WindowFeed

DOCUMENTS = ["abracadabra" * 3, "ab", "cadabrac", "r", "bracada" * 4, "x"]
CELLS = ("elman", "lstm", "gru", "attention")
SYMBOLS = Symbols.fit(DOCUMENTS[:-1], specials=(BOUNDARY,))


def text(documents: list[str], ends: bool = True) -> TextCodes:
    return TextCodes.of(documents, SYMBOLS, ends=ends)


def model(cell: str = "gru", window: int | None = None) -> SequenceModel:
    torch.manual_seed(1)
    if cell == "attention":
        layers: tuple[Any, ...] = (TransformerSpec(3, 8, 2, 2, 16, window_steps=window),)
    else:
        layers = tuple(LayerSpec(build(cell, width, 8).to_json()) for width in (3, 8))
    head = HeadSpec({"task": "lm", "classes": ["<unknown>", *SYMBOLS.names]})
    return SequenceModel(ModelSpec(SYMBOLS, (3,), layers, (head,))).double()


def recipe(batch_size: int = 3, seed: int = 0) -> Train:
    return read_recipe(None, {"batch_size": batch_size, "seed": seed}).train


def windows(
    net: SequenceModel, feed: WindowFeed, train: Train, epoch: int | None = 1
) -> Iterator[tuple[Window, Any, Any]]:
    """Read an epoch as the loop does; yield window, batch and losses."""
    state = None
    for item in feed.order(train, epoch):
        batch = feed.batch(item, state)
        lost = net.losses(batch)
        state = detach(lost.state)
        yield item, batch, lost


def gradients(net: SequenceModel, loss: torch.Tensor) -> torch.Tensor:
    net.zero_grad()
    loss.backward()
    return torch.cat(
        [
            (w.grad if w.grad is not None else torch.zeros_like(w)).flatten()
            for w in net.parameters()
        ]
    )


def whole(net: SequenceModel, one: TextCodes) -> torch.Tensor:
    """Loss of one document run at once, with the whole graph."""
    rows = one.rows
    codes = torch.from_numpy(one.codes[rows].astype(np.int64))[None, :, None]
    outputs, _ = net(codes, torch.zeros(1, len(rows), 0, dtype=torch.double))
    target = torch.from_numpy(one.codes[rows + 1].astype(np.int64))
    return functional.cross_entropy(
        outputs[0][0][target != 0], target[target != 0], reduction="sum"
    )


def counted(feed: WindowFeed, train: Train, epoch: int | None) -> np.ndarray:
    times = np.zeros(feed.events, dtype=int)
    for item in feed.order(train, epoch):
        for start, length, before in zip(item.starts, item.lengths, item.counted):
            times[start + before : start + length] += 1
    return times


@pytest.mark.parametrize(("steps", "stride"), [(1, 1), (4, 4), (4, 1), (5, 3), (100, 100)])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
@pytest.mark.parametrize("ends", [True, False])
def test_every_step_counts_once(steps: int, stride: int, batch_size: int, ends: bool) -> None:
    feed = WindowFeed(text(DOCUMENTS, ends), steps, stride)
    for epoch in (None, 1, 2):
        assert set(counted(feed, recipe(batch_size), epoch)) == {1}
    one = WindowFeed(text(["abra" * 60], ends=False), steps, stride)
    assert set(counted(one, recipe(batch_size), 1)) == {1}
    net = model()
    read = sum(int(lost.steps.sum()) for _, _, lost in windows(net, feed, recipe(batch_size)))
    assert read == int((feed.text.codes[feed.text.rows + 1] != 0).sum())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "stride"), [(1, 1), (4, 4), (4, 2), (100, 100)])
def test_documents_in_any_order_and_width_give_the_same_loss(
    cell: str, steps: int, stride: int
) -> None:
    """No state leaks from one document into another, and none is lost within one."""
    net = model(cell)
    with torch.no_grad():
        expected = sum(float(whole(net, text([document]))) for document in DOCUMENTS)
    for documents, batch_size in ((DOCUMENTS, 1), (DOCUMENTS[::-1], 2), (DOCUMENTS, 6)):
        feed = WindowFeed(text(documents), steps, stride)
        # Documents longer than a stream's share would be cut, so streams are few or windows long.
        if max(feed.lengths) > max(-(-feed.events // batch_size), 4 * steps):
            continue
        with torch.no_grad():
            read = windows(net, feed, recipe(batch_size), 1)
            total = sum(float(lost.sums) for _, _, lost in read)
        assert total == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_a_window_as_long_as_the_text_gives_the_whole_gradient(cell: str) -> None:
    net = model(cell)
    documents = DOCUMENTS[:-1]
    feed = WindowFeed(text(documents), 100, 100)
    read = list(windows(net, feed, recipe(len(documents))))
    assert len(read) == 1
    found = gradients(net, read[0][2].sums.sum())
    expected = gradients(net, sum(whole(net, text([document])) for document in documents))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "stride"), [(4, 4), (4, 1), (5, 3), (6, 2)])
def test_a_gradient_goes_back_through_the_window_and_no_further(
    cell: str, steps: int, stride: int
) -> None:
    """Equal to a graph that is cut by hand where each window begins."""
    net = model(cell)
    one = text(["abracadabrabracadab"], ends=False)
    feed = WindowFeed(one, steps, stride)
    codes = torch.from_numpy(one.codes[one.rows].astype(np.int64))[None, :, None]
    target = torch.from_numpy(one.codes[one.rows + 1].astype(np.int64))
    numbers = torch.zeros(1, one.steps, 0, dtype=torch.double)
    # None as the epoch: windows begin at the start of the text, none is shorter by chance.
    for item, _, lost in windows(net, feed, recipe(1), None):
        start, length, before = int(item.starts[0]), int(item.lengths[0]), int(item.counted[0])
        state = None
        if start:
            _, state = net(codes[:, :start], numbers[:, :start])
        outputs, _ = net(codes[:, start : start + length], numbers[:, :length], state=detach(state))
        expected = functional.cross_entropy(
            outputs[0][0, before:], target[start + before : start + length], reduction="sum"
        )
        torch.testing.assert_close(lost.sums.sum(), expected, rtol=1e-9, atol=0.0)
        torch.testing.assert_close(
            gradients(net, lost.sums.sum()), gradients(net, expected), rtol=1e-8, atol=1e-10
        )
        assert length - before <= max(stride, steps if not start else 0)


def test_a_stream_goes_on_where_it_was() -> None:
    feed = WindowFeed(text(["abracadabra" * 30], ends=False), 5, 5)
    reached: dict[int, int] = {}
    for item in feed.order(recipe(4), 3):
        for stream, (start, length) in enumerate(zip(item.starts, item.lengths)):
            if stream in reached and length:
                assert start == reached[stream]
                assert not item.fresh[stream]
            reached[stream] = int(start + length)
    assert len(reached) == 4


def test_windows_end_elsewhere_in_every_epoch_and_the_seed_decides() -> None:
    feed = WindowFeed(text(["abracadabra" * 60], ends=False), 16, 16)
    firsts = [int(feed.order(recipe(2), epoch)[0].lengths[0]) for epoch in range(1, 9)]
    assert len(set(firsts)) > 2
    assert firsts == [int(feed.order(recipe(2), epoch)[0].lengths[0]) for epoch in range(1, 9)]
    assert int(feed.order(recipe(2), None)[0].lengths[0]) == 16


def test_unknown_symbols_are_read_and_do_not_count() -> None:
    feed = WindowFeed(text(["axb"]), 8, 8)
    _, batch, lost = next(windows(model(), feed, recipe(1)))
    assert batch.codes[0, :, 0].tolist()[2] == 0
    assert int(lost.steps.sum()) == batch.events == 3


def test_processes_share_the_streams_out() -> None:
    feed = WindowFeed(text(DOCUMENTS), 4, 4)
    for item in feed.order(recipe(3), 1):
        parts = [feed.part(item, index, 2) for index in range(2)]
        assert sum(int(part.lengths.sum()) for part in parts) == int(item.lengths.sum())
        assert parts[1].starts.tolist() == item.starts[1::2].tolist()
