"""The transformer without torch is the one that was trained in torch, whole and step by step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from hiddenstate.artifact.transformer import KVCache, TransformerSpec
from hiddenstate.cells.state import select
from hiddenstate.errors import ArtifactError, ShapeError
from hiddenstate.runtime import blocks
from hiddenstate.runtime.transformer import Transformer
from hiddenstate.runtime.weights import Weights
from tests.laws.transformer_cases import (
    ALL,
    CAUSAL,
    LENGTHS,
    MEMORY_LENGTHS,
    B,
    M,
    T,
    case_of,
    flat,
    near,
    spec_of,
)

CLOSE = {"rtol": 2e-5, "atol": 2e-6}
every_spec = pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
every_causal_spec = pytest.mark.parametrize("spec", CAUSAL.values(), ids=CAUSAL)


def agree(found: Any, wanted: Any) -> None:
    for left, right in zip(flat(found), flat(wanted), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, **CLOSE)


@every_spec
@pytest.mark.parametrize("at_once", [1_000_000, 1, 40], ids="scores at once {}".format)
def test_runtime_is_torch(
    spec: TransformerSpec, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime is as near to the float64 truth as torch is in float32."""
    monkeypatch.setattr(blocks, "LARGEST_SCORES", at_once)
    case = case_of(spec)
    fast = case.fast()
    padding = torch.arange(T) >= LENGTHS[:, None]
    x = case.x.masked_fill(padding[..., None], torch.nan).numpy()
    output, state = fast.run(x, LENGTHS.numpy(), case.fast_first(fast), True)
    with torch.no_grad():
        reference, last = case.layer(case.x, LENGTHS, case.first)
        case.layer.double()
        first = None
        if case.memory is not None:
            first = case.layer.initial_state(case.memory.double(), MEMORY_LENGTHS)
        truth, end = case.layer(case.x.double(), LENGTHS, first)
    near(output, reference.numpy(), truth.numpy())
    for found, torchs, exact in zip(flat(state), flat(last), flat(end), strict=True):
        near(found, torchs.numpy(), exact.numpy())
    assert (fast.output_size, [each.kernel for each in fast.directions]) == (spec.size, ["numpy"])
    again, none = fast.run(x, LENGTHS.numpy(), case.fast_first(fast), False)
    assert none is None
    np.testing.assert_array_equal(again, output)


@every_causal_spec
def test_chunked_and_streamed_are_whole(spec: TransformerSpec) -> None:
    case = case_of(spec)
    fast, x = case.fast(), case.x.numpy()
    for lengths in (np.full(B, T), LENGTHS.numpy()):
        whole, last = fast.run(x, lengths, case.fast_first(fast), True)
        for cuts in ([0, 4, 4, 5, T], list(range(T + 1))):
            state, parts = case.fast_first(fast), []
            for start, end in pairwise(cuts):
                counts = np.clip(lengths - start, 0, end - start)
                output, state = fast.run(x[:, start:end], counts, state, True)
                parts.append(output)
            np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, **CLOSE)
            agree(state, last)


@every_causal_spec
def test_a_state_stays_what_it_was(spec: TransformerSpec) -> None:
    """However often it is continued, at once or in turns, and though rows differ in length."""
    case = case_of(spec)
    fast, x = case.fast(), case.x.numpy()
    counts = [3, 1, 0, 2]
    _, state = fast.run(x[:, :3], np.array(counts), case.fast_first(fast), True)
    # The second run makes room behind the cache, which the next may take.
    _, state = fast.run(x[:, 3:4], None, state, True)
    inputs = [np.full_like(x[:, :3], np.nan), x[:, 4:7], x[:, 4:5], x[:, 6:9]]
    expected = [[alone(case, fast, row, counts[row], new) for row in range(B)] for new in inputs]
    ran = [fast.run(new, None, state, True) for new in inputs]
    with ThreadPoolExecutor(4) as threads:
        raced = list(threads.map(lambda new: fast.run(new, None, state, True), inputs * 5))
    for k, (output, after) in enumerate(ran + raced):
        for row, (wanted, last) in enumerate(expected[k % len(inputs)] if k % len(inputs) else ()):
            np.testing.assert_allclose(output[row], wanted, **CLOSE)
            held = last[0].keys.shape[1]
            assert after[0].steps[row] == last[0].steps[0]
            for cache, end in zip(after, last, strict=True):
                np.testing.assert_allclose(cache.keys[row, :held], end.keys[0], **CLOSE)
                np.testing.assert_allclose(cache.values[row, :held], end.values[0], **CLOSE)


def alone(case: Any, fast: Transformer, row: int, count: int, new: np.ndarray) -> tuple[Any, Any]:
    """One row's output at its new steps, and its state, from all its steps at once."""
    x = np.concatenate([case.x.numpy()[row, :count], case.x.numpy()[row, 3:4], new[row]])
    output, last = fast.run(x[None], None, select(case.fast_first(fast), [row]), True)
    return output[0, count + 1 :], last


@pytest.mark.parametrize(("window", "kept"), [(None, 400), (50, 49)])
def test_a_step_copies_nothing_of_the_past(window: int | None, kept: int) -> None:
    case = case_of(spec_of(window_steps=window, blocks=1))
    fast, state, moves = case.fast(), None, 0
    for t in range(400):
        before = state
        _, state = fast.run(case.x[:, t % T : t % T + 1].numpy(), None, state, True)
        moves += before is None or not np.shares_memory(before[0].keys, state[0].keys)
    assert state[0].keys.shape[1] == kept
    assert moves <= 12


@every_causal_spec
def test_the_spec_knows_the_bytes_of_a_state(spec: TransformerSpec) -> None:
    case = case_of(spec)
    fast = case.fast()
    memory = np.zeros((1, M, spec.memory_size), np.float32) if spec.memory_size else None
    for steps in (0, 1, 2, 9):
        state = fast.initial_state(1, memory)
        _, state = fast.run(case.x[:1, :steps].numpy(), None, state, True)
        held = M if spec.memory_size else 0
        assert sum(array.nbytes for array in flat(state)) == spec.state_bytes(steps, held)


@every_spec
def test_rows_are_isolated(spec: TransformerSpec) -> None:
    case = case_of(spec)
    fast, kept = case.fast(), [0, 1, 3]
    broken = case.x.numpy().copy()
    broken[2] = np.nan
    expected, last = fast.run(case.x.numpy(), None, case.fast_first(fast), True)
    output, state = fast.run(broken, None, case.fast_first(fast), True)
    np.testing.assert_array_equal(output[kept], expected[kept])
    assert np.isnan(output[2]).all()
    if spec.causal:
        one = fast.run(case.x[:, :1].numpy(), None, last, True)[0]
        other = fast.run(case.x[:, :1].numpy(), None, state, True)[0]
        np.testing.assert_array_equal(one[kept], other[kept])


@every_spec
def test_nothing_to_run_is_legal(spec: TransformerSpec) -> None:
    case = case_of(spec)
    fast = case.fast()
    for time in (0, 2):
        output, _ = fast.run(
            case.x[:, :time].numpy(), np.zeros(B, np.int64), case.fast_first(fast), True
        )
        assert output.shape == (B, time, spec.size)
        assert not output.any()
    first = select(case.fast_first(fast), slice(0))
    assert fast.run(case.x[:0].numpy(), None, first, True)[0].shape == (0, T, spec.size)


plain, reads = case_of(spec_of()).fast(), case_of(spec_of(memory_size=5)).fast()
both = case_of(spec_of(causal=False)).fast()
x = np.zeros((2, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: plain.run(x, None, (), True), "needs 2 of them with keys .2, S, 2, 4."),
        (lambda: plain.run(x, None, plain.run(x[:1], None, None, True)[1], True), r"\[1, 4, 2, 4"),
        (lambda: both.run(x, None, plain.run(x, None, None, True)[1], True), "both directions"),
        (lambda: reads.run(x, None, None, True), "NoneType.*and a memory"),
        (lambda: reads.initial_state(2), r"None.*reads \[2, M, 5\]"),
        (lambda: plain.initial_state(2, np.zeros((2, 3, 5))), r"\[2, 3, 5\].*reads none"),
    ],
)
def test_errors_have_three_parts(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises(ShapeError, match=says) as caught:
        wrong()
    assert all((caught.value.wrong, caught.value.expected, caught.value.remedy))


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"at\.project\.weight is missing"):
        Transformer(spec_of(), Weights({}), "at.")


def test_a_state_of_torch_goes_on_without_it() -> None:
    case = case_of(spec_of())
    with torch.no_grad():
        whole = case.layer(case.x)[0]
        state = case.layer(case.x[:, :5])[1]
    taken = tuple(KVCache(*(array.numpy() for array in cache[:3])) for cache in state)
    np.testing.assert_allclose(
        case.fast().run(case.x[:, 5:].numpy(), None, taken, True)[0], whole[:, 5:], **CLOSE
    )
