"""What holds for self-attention as a layer: all that holds for a recurrent one, and positions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hiddenstate.artifact.transformer import KVCache, TransformerSpec
from hiddenstate.cells import GRU
from hiddenstate.cells.state import select
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.nn import Recurrent, Stack, detach
from hiddenstate.nn.blocks import Plan, rotate
from hiddenstate.nn.transformer import Transformer
from tests.laws.transformer_cases import (
    ALL,
    CAUSAL,
    LENGTHS,
    MEMORY_LENGTHS,
    B,
    Case,
    D,
    M,
    T,
    case_of,
    flat,
    spec_of,
)
from tests.naive import attention as naive

EXACT = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture(autouse=True)
def _double_and_nan_filled() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)


every_spec = pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
every_causal_spec = pytest.mark.parametrize("spec", CAUSAL.values(), ids=CAUSAL)


@every_spec
def test_the_spec_knows_the_weights(spec: TransformerSpec) -> None:
    held = case_of(spec).layer.state_dict()
    assert {name: tuple(weight.shape) for name, weight in held.items()} == spec.shapes()
    assert spec.parameter_count == sum(weight.numel() for weight in held.values())
    assert TransformerSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def pull(case: Case, x: Tensor, memory: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """Everything that comes out, and the gradients of everything that goes in."""
    leaves = [x.clone().requires_grad_(), *case.layer.parameters()]
    state = None
    if memory is not None:
        leaves.append(memory.clone().requires_grad_())
        state = case.layer.initial_state(leaves[-1], MEMORY_LENGTHS)
    output, last = case.layer(leaves[0], LENGTHS, state)
    floats = [array for array in flat(last) if array.is_floating_point()]
    loss = (output**2).sum() + sum(((array + 1.0) ** 2).sum() for array in floats)
    return [output, *flat(last)], list(torch.autograd.grad(loss, leaves))


@every_spec
def test_padding_changes_nothing(spec: TransformerSpec) -> None:
    case = case_of(spec)
    found, slopes = pull(case, case.x, case.memory)
    padding = torch.arange(T) >= LENGTHS[:, None]
    assert not found[0][padding].any()
    assert not slopes[0][padding].any()
    assert all(slope.isfinite().all() for slope in slopes)
    for filling in (torch.nan, torch.inf, 9.0):
        memory = case.memory
        if memory is not None:
            outside = torch.arange(M) >= MEMORY_LENGTHS[:, None]
            memory = memory.masked_fill(outside[..., None], filling)
            assert not slopes[-1][outside].any()
        again, others = pull(case, case.x.masked_fill(padding[..., None], filling), memory)
        assert all(map(torch.equal, again, found))
        assert all(map(torch.equal, others, slopes))


@every_spec
def test_a_row_is_the_same_alone(spec: TransformerSpec) -> None:
    case = case_of(spec)
    output, last = case.layer(case.x, LENGTHS, case.first)
    for row, length in enumerate(LENGTHS.tolist()):
        first = None
        if case.memory is not None:
            memory = case.memory[row : row + 1, : MEMORY_LENGTHS[row]]
            first = case.layer.initial_state(memory)
        alone, ends = case.layer(case.x[row : row + 1, :length], state=first)
        torch.testing.assert_close(output[row, :length], alone[0], **EXACT)
        for whole, end in zip(last, ends, strict=True):
            assert whole.steps[row] == end.steps[0] == length
            held = end.keys.shape[1]
            for ours, its in zip(whole[:2], end[:2], strict=True):
                torch.testing.assert_close(ours[row, :held], its[0], **EXACT)
                assert not ours[row, held:].any()


@every_spec
def test_rows_are_isolated(spec: TransformerSpec) -> None:
    case = case_of(spec)
    broken = case.x.clone()
    broken[2] = torch.nan
    kept = [0, 1, 3]
    for lengths in (LENGTHS, None):
        expected = case.layer(case.x, lengths, case.first)[0]
        output = case.layer(broken, lengths, case.first)[0]
        assert torch.equal(output[kept], expected[kept])
        assert output[2, :4].isnan().all()
        order = torch.tensor([2, 0, 3, 1])
        first = select(case.first, order)
        moved = case.layer(case.x[order], None if lengths is None else lengths[order], first)[0]
        torch.testing.assert_close(moved, expected[order], **EXACT)


@every_causal_spec
def test_chunked_and_streamed_are_whole(spec: TransformerSpec) -> None:
    case = case_of(spec)
    for lengths in (torch.full((B,), T), LENGTHS):
        whole, last = case.layer(case.x, lengths, case.first)
        for cuts in ([0, 4, 4, 5, T], list(range(T + 1))):
            state, parts = case.first, []
            for start, end in pairwise(cuts):
                counts = (lengths - start).clamp(0, end - start)
                output, state = case.layer(case.x[:, start:end], counts, state)
                parts.append(output)
            torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
            torch.testing.assert_close(flat(state), flat(last), **EXACT)
    state = case.first
    for t in range(T):
        output, state = case.layer.step(case.x[:, t], state)
        torch.testing.assert_close(output[0], whole[0, t], **EXACT)


@every_causal_spec
def test_chunks_may_be_ragged_anywhere(spec: TransformerSpec) -> None:
    case = case_of(spec)
    first, second = torch.tensor([1, 4, 0, 3]), torch.tensor([5, 0, 2, 4])
    before, state = case.layer(case.x[:, :4], first, case.first)
    after, state = case.layer(case.x[:, 4:], second, state)
    assert torch.equal(state[0].steps, first + second)
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        x = torch.cat([case.x[row, :one], case.x[row, 4 : 4 + other]])[None]
        alone = case.layer(x, state=select(case.first, [row]))[0][0]
        chunked = torch.cat([before[row, :one], after[row, :other]])
        torch.testing.assert_close(chunked, alone, **EXACT)


@every_causal_spec
def test_the_future_stays_away(spec: TransformerSpec) -> None:
    case = case_of(spec)
    changed = case.x.clone()
    changed[:, 5:] += 100.0
    output, expected = (case.layer(x, state=case.first)[0] for x in (changed, case.x))
    torch.testing.assert_close(output[:, :5], expected[:, :5], **EXACT)
    assert (output[:, 5:] != expected[:, 5:]).any(-1).all()


def test_both_directions_are_read() -> None:
    case = case_of(spec_of(causal=False))
    changed = case.x.clone()
    changed[:, 5] += 1.0
    output, expected = (case.layer(x)[0] for x in (changed, case.x))
    assert (output != expected).any(-1).all()
    assert case.layer(case.x)[1] == ()


def test_a_window_is_what_a_step_sees() -> None:
    """One block looks back window_steps - 1, and each block on top as many again."""
    for blocks in (1, 2):
        case = case_of(spec_of(window_steps=3, blocks=blocks))
        changed = case.x.clone()
        changed[:, 1] += 1.0
        output, expected = (case.layer(x)[0] for x in (changed, case.x))
        moved = (output - expected).abs().amax(-1) > 1e-6
        assert moved.tolist() == [[1 <= t <= 1 + 2 * blocks for t in range(T)]] * B


@every_causal_spec
def test_none_is_the_first_state(spec: TransformerSpec) -> None:
    case = case_of(spec)
    expected, last = case.layer(case.x, LENGTHS, case.first)
    output, state = case.layer(case.x, LENGTHS, case.layer(case.x[:, :0], None, case.first)[1])
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(flat(state), flat(last), **EXACT)
    assert case.layer(case.x, LENGTHS, case.first, final_state=False)[1] is None


@every_spec
def test_nothing_to_run_is_legal(spec: TransformerSpec) -> None:
    case = case_of(spec)
    none = torch.zeros(B, dtype=torch.int64)
    for time in (0, 2):
        output, state = case.layer(case.x[:, :time], none, case.first)
        assert output.shape == (B, time, spec.size)
        assert not output.any()
        assert all(len(array) == B for array in flat(state))
    output, _ = case.layer(case.x[:0], state=select(case.first, slice(0)))
    assert output.shape == (0, T, spec.size)


@every_causal_spec
def test_a_detached_state_ends_the_gradient(spec: TransformerSpec) -> None:
    case = case_of(spec)
    x = case.x.requires_grad_()
    state = case.layer(x[:, :4], state=case.first)[1]
    after = case.layer(x[:, 4:], state=state)[0].square().sum()
    through = torch.autograd.grad(after, x, retain_graph=True)[0]
    cut = torch.autograd.grad(case.layer(x[:, 4:], state=detach(state))[0].square().sum(), x)[0]
    assert through[:, :4].any() == (spec.kept_steps != 0)
    assert not cut[:, :4].any()
    torch.testing.assert_close(cut[:, 4:], through[:, 4:], **EXACT)


@every_spec
def test_trace_tells_where_it_looked(spec: TransformerSpec) -> None:
    case = case_of(spec)
    output, state, scans = case.layer.trace(case.x, LENGTHS, case.first)
    expected, last = case.layer(case.x, LENGTHS, case.first)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(flat(state), flat(last), **EXACT)
    assert len(scans) == spec.blocks
    real = (torch.arange(T) < LENGTHS[:, None]).double()
    for scan in scans:
        alpha, memory = scan.gates
        assert alpha.shape == (B, spec.heads, T, T)
        torch.testing.assert_close(alpha.sum(-1), real[:, None].expand(*alpha.shape[:3]), **EXACT)
        assert not alpha.triu(1).any() or not spec.causal
        if spec.window_steps is not None:
            assert not alpha.tril(-spec.window_steps).any()
        assert (memory is None) == (spec.memory_size is None)
        if memory is not None:
            assert memory.shape == (B, spec.heads, T, M)
            some = real * (MEMORY_LENGTHS > 0)[:, None]
            total = some[:, None].expand(*memory.shape[:3])
            torch.testing.assert_close(memory.sum(-1), total, **EXACT)
    torch.testing.assert_close(case.layer.norm(scans[-1].output)[0], output[0], **EXACT)
    if spec.causal:
        state = case.layer(case.x[:, :5], state=case.first)[1]
        later = case.layer.trace(case.x[:, 5:], state=state)[2][-1].gates.own
        whole = case.layer.trace(case.x, state=case.first)[2][-1].gates.own
        held = later.shape[-1]
        torch.testing.assert_close(later, whole[:, :, 5:, T - held :], **EXACT)


def test_gradients_are_right() -> None:
    for name in ("rotary", "sinusoidal", "window", "decoder", "both directions"):
        case = case_of(ALL[name])
        weights = dict(case.layer.named_parameters())
        chosen = [w for key, w in weights.items() if "query" in key or key.startswith("project")]
        x = case.x[[0, 2], :4].clone().requires_grad_()
        assert torch.autograd.gradcheck(partial(_run, case), [x, *chosen], fast_mode=True)


def _run(case: Case, x: Tensor, *_: Tensor) -> Tensor:
    lengths = torch.tensor([4, 2])
    if not case.layer.spec.causal:
        return case.layer(x, lengths)[0]
    output, state = case.layer(x[:, :2], lengths.clamp(max=2), select(case.first, [0, 3]))
    return output.sum() + case.layer(x[:, 2:], lengths - 2, state)[0]


def planned(spec: TransformerSpec, steps: list[int], time: int) -> Plan:
    x = torch.zeros(len(steps), time, spec.size)
    nothing = torch.zeros(len(steps), 0, spec.heads, spec.head_size)
    cache = KVCache(nothing, nothing, torch.tensor(steps))
    return Plan.of(spec, x, None, cache, final_state=False)


def test_rotary_is_naive_and_knows_the_distance_only() -> None:
    spec = spec_of(heads=1)
    query, key = torch.randn(2, 8).tolist()
    for start in (0, 5, 1_000_000):
        turned = []
        for vector, position in ((query, start + 7), (key, start + 3)):
            waves = planned(spec, [position], 1).waves
            assert waves is not None
            found = rotate(torch.tensor(vector)[None, None, None], *waves)[0, 0, 0]
            wanted = torch.tensor(naive.rotary(vector, position))
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
            turned.append(found)
        if start == 0:
            expected = turned[0] @ turned[1]
        torch.testing.assert_close(turned[0] @ turned[1], expected, rtol=1e-8, atol=1e-9)
    moved = rotate(torch.tensor(key)[None, None, None], *planned(spec, [4], 1).waves)[0, 0, 0]
    assert (turned[0] @ moved - expected).abs() > 1e-3


@pytest.mark.parametrize("positions", ["rotary", "none", "sinusoidal"])
def test_a_rotary_layer_does_not_know_when_it_began(positions: str) -> None:
    case = case_of(spec_of(positions=positions, window_steps=3))
    longer = torch.cat([torch.randn(B, 40, D), case.x], 1)
    # Two blocks with this window see four steps back, and none of the forty.
    early, late = case.layer(case.x)[0][:, 4:], case.layer(longer)[0][:, 44:]
    assert torch.allclose(early, late, rtol=1e-9, atol=1e-9) == (positions != "sinusoidal")


def test_sinusoids_are_naive() -> None:
    found = planned(spec_of(positions="sinusoidal"), [0, 90], 3).sinusoids(torch.zeros(2, 3, 8))
    for row, start in enumerate((0, 90)):
        for t in range(3):
            wanted = torch.tensor(naive.sinusoids(start + t, 8))
            torch.testing.assert_close(found[row, t], wanted, **EXACT)


def test_it_stands_in_a_stack() -> None:
    torch.manual_seed(0)
    layer = Transformer(spec_of(input_size=5), dropout=0.5)
    stack = Stack([Recurrent(GRU(D, 5)), layer, Recurrent(GRU(8, 8))], residual=True).eval()
    x = torch.randn(B, T, D)
    whole, last = stack(x, LENGTHS)
    state = None
    for t in range(T):
        output, state = stack(x[:, t : t + 1], (t < LENGTHS).long(), state)
        torch.testing.assert_close(output[:, 0], whole[:, t], **EXACT)
    torch.testing.assert_close(flat(state), flat(last), **EXACT)
    assert torch.equal(stack(x)[0], stack(x)[0])
    assert not torch.equal(layer.train()(x @ torch.ones(D, 5))[0], layer(x @ torch.ones(D, 5))[0])


def test_first_weights_keep_the_variance() -> None:
    torch.manual_seed(0)
    layer = Transformer(TransformerSpec(64, 128, blocks=6, heads=4, feedforward=512))
    x = torch.randn(8, 50, 64)
    _, _, scans = layer.trace(x)
    spreads = [scan.output.std().item() for scan in scans]
    assert all(0.9 < spread < 1.6 for spread in spreads), spreads


plain = case_of(spec_of()).layer.float()
reads = case_of(spec_of(memory_size=5)).layer.float()
both = case_of(spec_of(causal=False)).layer.float()
x32 = torch.zeros(2, 4, D, dtype=torch.float32)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: spec_of(size=6), "size 6 and 2 heads.*Take size 8"),
        (lambda: spec_of(heads=0), "heads = 0"),
        (lambda: spec_of(window_steps=0), "window_steps = 0"),
        (lambda: spec_of(positions="rotaty"), "Did you mean rotary"),
        (lambda: spec_of(causal=False, window_steps=3), "reads both directions"),
        (lambda: spec_of(causal=False, memory_size=3), "reads both directions"),
        (lambda: plain(x32.double()), "float64"),
        (lambda: plain(torch.zeros(2, 4, 5)), "5 features"),
        (lambda: plain(x32, state=torch.zeros(2, 8)), "Tensor"),
        (lambda: plain(x32, state=()), "0 KVCaches"),
        (lambda: plain(x32, state=plain(x32[:1])[1]), r"\[1, 4, 2, 4\]"),
        (lambda: plain(x32, state=reads.initial_state(torch.zeros(2, 3, 5).float())), "2 KVCaches"),
        (lambda: both(x32, state=plain(x32)[1]), "both directions"),
        (lambda: reads(x32), "NoneType.*and a memory.*initial_state"),
        (lambda: reads.initial_state(torch.zeros(2, 3, 4)), r"\[2, 3, 4\].*reads \[B, M, 5\]"),
        (lambda: plain.initial_state(torch.zeros(2, 3, 4)), "reads no memory"),
    ],
)
def test_errors_have_three_parts(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises((ShapeError, SpecError), match=says) as caught:
        wrong()
    assert all((caught.value.wrong, caught.value.expected, caught.value.remedy))
