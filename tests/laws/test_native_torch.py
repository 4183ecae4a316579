"""The compiled kernels under torch's machinery: gradients, compilers, autocast, DDP, forks."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddenstate.cells import GRU, LSTM, Cell
from hiddenstate.errors import ShapeError
from hiddenstate.kernels import native
from hiddenstate.nn import Bidirectional, Recurrent, Stack, linear_scan
from hiddenstate.nn.recur import call_of, recur
from tests.laws.cell_cases import hold, label
from tests.laws.native_runs import compiled, drawn, kinds

pytestmark = pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)
LENGTHS = torch.tensor([7, 0, 4])
KINDS = kinds(3, 5)


@pytest.fixture(autouse=True)
def _buffers_are_nan() -> Iterator[None]:
    compiled.fill_with_nan(True)
    yield
    compiled.fill_with_nan(False)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def operands(
    cell: Cell,
    dtype: torch.dtype = torch.float64,
    grad: bool = False,
    batch: int = 3,
    time: int = 7,
) -> tuple[list[Tensor], Tensor, tuple[Tensor | None, Tensor | None]]:
    """Parameters in order, x, and h and c."""
    params, x, state = drawn(cell, batch, time)
    each = [torch.tensor(a, dtype=dtype, requires_grad=grad) for a in (*params.values(), x, *state)]
    count = len(params)
    h, c, *_ = (*each[count + 1 :], None)
    return each[:count], each[count], (h, c)


def schema_of(cell: Cell, lengths: Tensor | None, reverse: bool, want: int, grad: bool) -> tuple:
    params, x, (h, c) = operands(cell, grad=grad)
    return x, h, c, params, lengths, *call_of(cell, list(cell.shapes()), reverse=reverse, want=want)


CHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_static",
)


@pytest.mark.parametrize("cell", KINDS, ids=label)
def test_opcheck_of_recur(cell: Cell) -> None:
    operator = torch.ops.hiddenstate.recur.default
    for lengths, reverse, want in ((None, False, 1), (LENGTHS, True, 7)):
        for grad in (False, True):
            arguments = schema_of(cell, lengths, reverse, want, grad)
            torch.library.opcheck(operator, arguments, test_utils=CHECKS)
    x, h, c, params, lengths, *call = schema_of(cell, LENGTHS, True, 1, False)
    ran = operator(x, h, c, params, lengths, *call)
    upstream = [torch.randn_like(each) for each in ran[:2]]
    dc = None if c is None else torch.randn_like(c)
    for given in ((*upstream, dc), (None, upstream[1], None), (upstream[0], None, None)):
        arguments = (x, h, c, lengths, ran[0], ran[3], params, *given, *call)
        back = torch.ops.hiddenstate.recur_backward.default
        torch.library.opcheck(back, arguments, test_utils=CHECKS[:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 1, 17)])
def test_opcheck_of_linear_scan(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for grad in (False, True):
        a, b = (torch.rand(shape, dtype=dtype, requires_grad=grad) for _ in range(2))
        first = torch.rand(shape[0], shape[2], dtype=dtype, requires_grad=grad)
        for start in (None, first):
            torch.library.opcheck(torch.ops.hiddenstate.linear_scan.default, (a, b, start))
    given = [each.detach() for each in (a, b, first, a)]
    back = torch.ops.hiddenstate.linear_scan_backward.default
    torch.library.opcheck(back, tuple(given), test_utils=CHECKS[:3])


def through(cell: Cell, lengths: Tensor | None, reverse: bool, operator: bool) -> Any:
    """Map the leaves to the outputs that have gradients, eagerly or through the operator."""
    names = list(cell.shapes())
    call = call_of(cell, names, reverse=reverse, want=native.KEPT)

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        params, state = rest[: len(names)], rest[len(names) :]
        h, c, *_ = (*state, None)
        if operator:
            ran = torch.ops.hiddenstate.recur(x, h, c, list(params), lengths, *call)
        else:
            ran = recur(call, x, h, c, params, lengths)
        return tuple(ran[: 1 + len(state)])

    return run


@pytest.mark.parametrize("operator", [False, True], ids=["eager", "operator"])
@pytest.mark.parametrize("cell", KINDS, ids=label)
def test_first_and_second_derivatives(cell: Cell, operator: bool) -> None:
    params, x, (h, c) = operands(cell, grad=True, time=3)
    if "relu" in cell.convention:  # no step of it may stand near the corner
        h, x = h.detach().requires_grad_(), x.detach().abs().requires_grad_()
    leaves = (x, *params, *(each for each in (h, c) if each is not None))
    for lengths, reverse in ((None, False), (torch.tensor([3, 0, 2]), True)):
        run = through(cell, lengths, reverse, operator)
        assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
        assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def test_derivatives_of_linear_scan() -> None:
    a, b = (torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    first = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    for run in (linear_scan, torch.ops.hiddenstate.linear_scan):
        for leaves in ((a, b, first), (a, b, None)):
            assert torch.autograd.gradcheck(run, leaves)
            assert torch.autograd.gradgradcheck(run, leaves)
    with pytest.raises(ShapeError, match="A linear scan got"):
        linear_scan(a, b.float())


@pytest.mark.parametrize("cell", KINDS, ids=label)
def test_create_graph_gives_the_same_gradients(cell: Cell) -> None:
    params, x, (h, c) = operands(cell, grad=True)
    leaves = [x, *params, *(each for each in (h, c) if each is not None)]
    outputs = through(cell, LENGTHS, False, False)(*leaves)
    loss = sum((each * each).sum() for each in outputs)
    once = torch.autograd.grad(loss, leaves, retain_graph=True)
    again = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(left, right) for left, right in zip(once, again, strict=True))
    graph = torch.autograd.grad(loss, leaves, create_graph=True)
    for left, right in zip(once, graph, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


def test_one_tensor_given_twice_has_the_sum_of_both_gradients() -> None:
    cell = LSTM(3, 5)
    params, x, (h, _) = operands(cell, grad=True)
    call = call_of(cell, list(cell.shapes()), reverse=False, want=native.KEPT)
    y = recur(call, x, h, h, params, None)[0].square().sum()
    (once,) = torch.autograd.grad(y, h, retain_graph=True)
    (graph,) = torch.autograd.grad(y, h, create_graph=True)
    torch.testing.assert_close(once, graph, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", KINDS, ids=label)
def test_any_part_of_the_gradients_may_be_asked(cell: Cell) -> None:
    params, x, (h, c) = operands(cell, grad=True)
    leaves = [x, *params, *(each for each in (h, c) if each is not None)]
    run = through(cell, LENGTHS, False, False)
    for chosen in range(1 + len(cell.State._fields)):
        full = torch.autograd.grad(run(*leaves)[chosen].sum(), leaves)  # of stride 0
        weighed = (run(*leaves)[chosen] * torch.ones(1, dtype=x.dtype)).sum()
        for left, right in zip(full, torch.autograd.grad(weighed, leaves), strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)
        for k, wanted in enumerate(leaves):
            frozen = [each.detach() for each in leaves]
            frozen[k] = wanted
            (part,) = torch.autograd.grad(run(*frozen)[chosen].sum(), [wanted])
            torch.testing.assert_close(part, full[k], rtol=0, atol=0)


def test_a_minus_that_torch_keeps_aside_is_seen() -> None:
    one = torch.ones(2, 5, 3)
    turned = torch.randn(2, 5, 3, dtype=torch.complex64).conj().imag
    assert turned.is_neg()
    assert torch.equal(linear_scan(one, turned), linear_scan(one, turned.resolve_neg()))
    layer = Recurrent(GRU(3, 5), seed=0)
    assert torch.equal(layer(turned)[0], layer(turned.resolve_neg())[0])
    b = torch.randn(2, 5, 3, requires_grad=True)
    torch.complex(linear_scan(one, b), linear_scan(one, b)).conj().imag.sum().backward()
    torch.testing.assert_close(b.grad, -torch.arange(5.0, 0, -1)[:, None].expand(2, 5, 3))


def test_without_gradients() -> None:
    for cell in KINDS:
        layer = Recurrent(cell, seed=0)
        x = torch.randn(3, 7, 3)
        recorded = layer(x, LENGTHS)
        assert recorded[0].requires_grad
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                output, state = layer(x, LENGTHS)
            assert not output.requires_grad
            assert torch.equal(output, recorded[0])
            assert all(torch.equal(a, b) for a, b in zip(state, recorded[1], strict=True))


def modules(cell: Cell) -> list[nn.Module]:
    other = type(cell)(cell.output_size, 4)
    pair = Recurrent(cell, seed=1), Recurrent(cell, reverse=True, seed=2)
    return [
        Recurrent(cell, seed=0),
        Stack([Recurrent(cell, seed=0), Recurrent(other, seed=3)], residual=True),
        Bidirectional(*pair),
    ]


@pytest.mark.parametrize("cell", [KINDS[0], KINDS[2], KINDS[6]], ids=label)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
def test_compiled_is_eager_without_a_graph_break(cell: Cell, lengths: Tensor | None) -> None:
    for module in modules(cell):
        torch._dynamo.reset()
        fast = torch.compile(module, fullgraph=True, backend="aot_eager")
        x = torch.randn(3, 7, 3, requires_grad=True)
        leaves = [x, *module.parameters()]
        found = []
        for each in (module, fast):
            output, state = each(x, lengths)
            first = state if isinstance(module, Recurrent) else state[0]
            loss = output.square().sum() + sum(last.sum() for last in first)
            found.append([output, *torch.autograd.grad(loss, leaves, allow_unused=True)])
        for eager, quick in zip(*found, strict=True):
            assert torch.equal(eager, quick)
        with torch.no_grad():
            assert torch.equal(fast(x, lengths)[0], found[0][0])
        used = [part.last_kernel for part in module.modules() if isinstance(part, Recurrent)]
        assert set(used) == {"native"}


def test_compiled_checks_lengths_when_it_runs() -> None:
    torch._dynamo.reset()
    fast = torch.compile(Recurrent(GRU(3, 5), seed=0), fullgraph=True, backend="aot_eager")
    fast(torch.zeros(3, 7, 3), LENGTHS)
    with pytest.raises(ValueError, match=r"lengths\[1\] is 8, expected 0 to 7"):
        fast(torch.zeros(3, 7, 3), torch.tensor([1, 8, 2]))


@pytest.mark.parametrize("cell", KINDS, ids=label)
def test_autocast_runs_in_float32(cell: Cell) -> None:
    layer = Recurrent(cell, seed=0)
    x = torch.randn(3, 7, 3)
    plain = layer(x, LENGTHS)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(x, LENGTHS)
        narrow = layer(x.bfloat16(), LENGTHS)[0]
        widened = layer(x.bfloat16().float(), LENGTHS)[0]
        grads = torch.autograd.grad(output.sum(), list(layer.parameters()), create_graph=True)
    assert layer.last_kernel == "native"
    assert torch.equal(output, plain)
    assert torch.equal(narrow, widened)
    assert {each.dtype for each in (output, narrow, *state)} == {torch.float32}
    expected = torch.autograd.grad(plain.sum(), list(layer.parameters()))
    for left, right in zip(grads, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    double = Recurrent(cell, seed=0).double()
    exact = double(x.double())[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(double(x.double())[0], exact)


# In a process of its own, which is left at once: gloo's threads can wait for the interpreter while
# the interpreter waits for them.
UNDER_DDP = """
import copy, os, sys
import torch
from torch import nn
from hiddenstate.cells import GRU, LSTM
from hiddenstate.nn import Recurrent, Stack

store = "file://" + sys.argv[1]
torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
plain = Stack([Recurrent(LSTM(3, 5), seed=0), Recurrent(GRU(5, 4), seed=1)])
spread = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
x = torch.randn(3, 7, 3)
for module in (plain, spread):
    module(x, torch.tensor([7, 0, 4]))[0].square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
for left, right in zip(plain.parameters(), spread.module.parameters(), strict=True):
    assert torch.equal(left, right) and left.grad.any()
print([layer.last_kernel for layer in spread.module.layers], flush=True)
os._exit(0)
"""


def test_one_step_under_ddp_is_one_step(tmp_path: Path) -> None:
    command = [sys.executable, "-c", UNDER_DDP, str(tmp_path / "store")]
    # The loopback by its name: gloo would look for the machine's own address, in the network.
    alone = {**os.environ, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    done = subprocess.run(
        command, env=alone, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "['native', 'native']", done.stderr


def test_copies_compute_the_same() -> None:
    layer = Recurrent(GRU(3, 5), seed=0)
    x = torch.randn(3, 7, 3)
    expected = layer(x, LENGTHS)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x, LENGTHS)[0], expected)


@pytest.mark.parametrize("cell", KINDS, ids=label)
def test_a_trace_is_the_reference_and_changes_no_bit(cell: Cell) -> None:
    x = torch.randn(3, 7, 3, dtype=torch.float64)
    for reverse in (False, True):
        layer = Recurrent(cell, seed=0, reverse=reverse).double()
        slow = Recurrent(cell, seed=0, reverse=reverse, kernel="reference").double()
        first = cell.State(*operands(cell)[2][: len(cell.State._fields)])
        for lengths in (None, LENGTHS):
            for state in (None, first):
                output, last, (traced,) = layer.trace(x, lengths, state)
                _, _, (expected,) = slow.trace(x, lengths, state)
                plain = layer(x, lengths, state)
                assert torch.equal(output, plain[0])
                assert all(torch.equal(a, b) for a, b in zip(last, plain[1], strict=True))
                left, right = (
                    [*each.gates, *each.states, each.projected] for each in (traced, expected)
                )
                torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-12)


def test_what_was_kept_is_freed() -> None:
    layer = Recurrent(LSTM(64, 128), seed=0)
    x = torch.randn(32, 32, 64)  # keeps 3 MB of gates a pass

    def train(times: int) -> None:
        for _ in range(times):
            layer(x)[0].sum().backward()

    def resident_mb() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc to read the resident memory from")
    train(10)
    gc.collect()
    before = resident_mb()
    train(200)
    assert resident_mb() - before < 60


@pytest.mark.usefixtures("_threads")
def test_threads_are_torchs_and_change_no_bit() -> None:
    for cell in kinds(32, 96):
        layer = Recurrent(cell, seed=0)
        x = torch.randn(33, 64, 32, generator=torch.Generator().manual_seed(0))
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            output = layer(x)[0]
            found.append([output, *torch.autograd.grad(output.sum(), list(layer.parameters()))])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork")  # by JAX, where another test has loaded it
def test_a_forked_child_computes_the_same() -> None:
    cell = LSTM(32, 96)
    params, x, state = drawn(cell, 33, 17)
    kernel = native.NativeKernel(threads=2)
    expected = kernel.run(cell, params, x, state).output
    child = os.fork()
    if child == 0:
        again = kernel.run(cell, params, x, state).output
        os._exit(0 if np.array_equal(again, expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_sizes_of_nothing() -> None:
    hold(_nothing, KINDS)


def _nothing(cell: Cell) -> None:
    for shape in ((0, 7, 3), (3, 0, 3), (0, 0, 3)):
        layer = Recurrent(cell, seed=0)
        x = torch.zeros(shape, requires_grad=True)
        output, state = layer(x)
        (output.sum() + sum(each.sum() for each in state)).backward()
        assert output.shape == (*shape[:2], 5)
        assert x.grad is not None
        assert x.grad.shape == shape
        assert all(each.grad is not None and not each.grad.any() for each in layer.parameters())
