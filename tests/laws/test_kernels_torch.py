"""Every fast torch kernel against the reference, over every variant of every registered cell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.errors import KernelRefusal
from hiddenstate.kernels import Kernel, Request, Zoneout
from hiddenstate.nn import KERNELS, Recurrent
from tests.laws.cell_cases import families, hold, label
from tests.laws.kernel_runs import DEVICES, FAST, REFERENCE, accepts, inputs, measure

LENGTHS = torch.tensor([7, 0, 4])
PLAIN: list[Cell] = [Elman(3, 5, 2), Elman(3, 5, activation="relu"), LSTM(3, 5, 2), GRU(3, 5, 2)]


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.use_deterministic_algorithms(request.param == "cpu")  # else cuBLAS wants a setting
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield request.param


def kernel_name(value: object) -> str | None:
    return value.name if hasattr(value, "refusals") else label(value)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kernel", FAST, ids=kernel_name)
@pytest.mark.parametrize("cells", families(), ids=label)
def test_it_is_the_reference_or_says_why_not(
    cells: list[Cell], kernel: Kernel, reverse: bool, device: str
) -> None:
    def accepted_is_right(cell: Cell) -> None:
        arrays = inputs(cell, 3, 7)
        for lengths in (None, LENGTHS):
            if lengths is not None:
                arrays["x"]["x"][1:, 4:] = np.nan
                arrays["x"]["x"][1] = np.nan
            fast = measure(kernel, cell, arrays, lengths, reverse, device=device)
            slow = measure(REFERENCE, cell, arrays, lengths, reverse)
            for name, value in slow.items():
                torch.testing.assert_close(
                    fast[name], value, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
                )
        assert not fast["output"][1].any()
        assert not fast["output"][2, 4:].any()
        assert not fast["d x x"][1].any()
        assert not fast["d x x"][2, 4:].any()
        for name in cell.state_shapes():
            np.testing.assert_array_equal(fast[name][1], arrays["state"][name][1])

    def refused_is_told(cell: Cell) -> None:
        layer = Recurrent(cell, kernel=kernel.name, reverse=reverse).to(device)
        with pytest.raises(KernelRefusal, match=f"{kernel.name}: (torch|they (have|run))"):
            layer(torch.zeros(3, 7, 3, device=device))

    hold(accepted_is_right, [cell for cell in cells if accepts(kernel, cell, device)])
    hold(refused_is_told, [cell for cell in cells if not accepts(kernel, cell, device)])


@pytest.mark.parametrize("kernel", FAST, ids=kernel_name)
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 2), (32, 17), (3, 63), (1, 17), (32, 1)])
@pytest.mark.parametrize("height", [1, 5, 64])
@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_float32_errs_no_more_than_the_reference(
    name: str, height: int, batch: int, time: int, kernel: Kernel, device: str
) -> None:
    cell = {"elman": Elman, "lstm": LSTM, "gru": GRU}[name](4, height, 2)
    if not accepts(kernel, cell, device):
        pytest.skip(f"{kernel.name} does not run on {device}")
    arrays = inputs(cell, batch, time, scale=1 / np.sqrt(height))
    counts = torch.tensor(np.random.default_rng(1).integers(0, time + 1, batch))
    for lengths in (None, counts):
        truth = measure(REFERENCE, cell, arrays, lengths)
        slow = measure(REFERENCE, cell, arrays, lengths, dtype=torch.float32)
        fast = measure(kernel, cell, arrays, lengths, dtype=torch.float32, device=device)
        for key, true in truth.items():
            error, allowed = ((got[key] - true).abs().max().item() for got in (fast, slow))
            ulp = np.finfo(np.float32).eps * true.abs().max().item()
            assert error <= 2 * allowed + 8 * ulp, (key, error, allowed, ulp)


@pytest.mark.parametrize("kernel", KERNELS, ids=kernel_name)
@pytest.mark.parametrize("cell", PLAIN, ids=label)
def test_gradients_by_finite_differences(cell: Cell, kernel: Kernel) -> None:
    arrays = inputs(cell, 2, 3)
    names = list(arrays["params"])
    lengths = torch.tensor([3, 2])

    def function(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        params = dict(zip(names, rest))
        ran = kernel.run(cell, params, x, cell.State(*rest[len(names) :]), lengths, reverse=True)
        return ran.output, *ran.state

    leaves = [arrays["x"]["x"], *arrays["params"].values(), *arrays["state"].values()]
    tensors = [torch.tensor(leaf, requires_grad=True) for leaf in leaves]
    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("kernel", KERNELS, ids=kernel_name)
@pytest.mark.parametrize("cell", PLAIN, ids=label)
def test_rows_are_isolated_and_the_future_stays_away(
    cell: Cell, kernel: Kernel, device: str
) -> None:
    if not accepts(kernel, cell, device):
        pytest.skip(f"{kernel.name} does not run on {device}")
    layer = Recurrent(cell, kernel=kernel.name, seed=0).to(device)
    x = torch.randn(3, 17, 3, generator=torch.Generator().manual_seed(0)).to(device)
    whole = layer(x)[0]
    broken = x.clone()
    broken[1, 5] = torch.nan
    output = layer(broken)[0]
    torch.testing.assert_close(output[[0, 2]], whole[[0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(output[1, :5], whole[1, :5], rtol=0, atol=0)
    # C's max(NaN, 0) hides it in some relus; elsewhere NaN in is NaN out.
    assert cell.convention == "relu" or output[1, 5:].isnan().all()


@pytest.mark.parametrize("kernel", KERNELS, ids=kernel_name)
@pytest.mark.parametrize("cell", PLAIN, ids=label)
def test_memory_layout_does_not_matter(cell: Cell, kernel: Kernel) -> None:
    layer = Recurrent(cell, kernel=kernel.name, seed=0)
    dense = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(0))
    first = layer(dense)[1]
    strided = dense.transpose(0, 1).contiguous().transpose(0, 1)
    spaced = torch.stack([dense, dense], -1)[..., 0]
    state = cell.State(*(each.T.contiguous().T for each in first))
    for lengths in (None, LENGTHS):
        expected, last = layer(dense, lengths, first)
        for x in (strided, spaced):
            output, state_out = layer(x, lengths, state)
            torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(tuple(state_out), tuple(last), rtol=1e-6, atol=1e-6)


SELECTION = [
    (Elman(3, 5), {}, "native"),
    (Elman(3, 5, activation="relu"), {"ragged": True}, "native"),
    (LSTM(3, 5), {"ragged": True, "reverse": True, "needs_state": True}, "native"),
    (LSTM(3, 5, forget_gate=False), {"needs_trace": True}, "native"),
    (LSTM(3, 5, coupled=True), {}, "native"),
    (LSTM(3, 5, peephole=True), {}, "native"),
    (LSTM(3, 5, projection=2), {"ragged": True}, "torch"),
    (LSTM(3, 5, layer_norm=True), {}, "reference"),
    (GRU(3, 5, update="writes"), {"dtype": "float64"}, "native"),
    (GRU(3, 5, reset="before"), {}, "native"),
    (GRU(3, 5), {"batch": 0, "time": 0}, "native"),
    (GRU(3, 5, 2), {"device": "cuda"}, "torch"),
    (GRU(3, 5, 2), {"dtype": "bfloat16"}, "torch"),
    (LSTM(3, 5, peephole=True), {"device": "cuda"}, "reference"),
    (GRU(3, 5, reset="before"), {"device": "cuda"}, "reference"),
    (GRU(3, 5), {"needs_trace": True, "device": "cuda"}, "reference"),
    (GRU(3, 5), {"time": 0, "device": "cuda"}, "reference"),
    (GRU(3, 5), {"batch": 0, "device": "cuda"}, "reference"),
    (GRU(3, 5), {"zoneout": True}, "reference"),
    (GRU(3, 5), {"second_order": True}, "reference"),
    (GRU(3, 5), {"device": "mps"}, "reference"),
]


@pytest.mark.parametrize(("cell", "asked", "expected"), SELECTION)
def test_selection(cell: Cell, asked: dict[str, object], expected: str) -> None:
    request = Request(cell, **{"batch": 3, "time": 7, "needs_grad": True, **asked})
    refusals = {kernel.name: kernel.refusals(request) for kernel in KERNELS}
    assert next(name for name, reasons in refusals.items() if not reasons) == expected
    if expected == "reference":
        assert len(refusals["torch"]) == 1, refusals


def test_what_it_refused_it_does_not_run_wrongly() -> None:
    cell = GRU(3, 5)
    params = {name: torch.zeros(shape) for name, shape in cell.shapes().items()}
    native, fused = FAST
    refused = [(native, {"zoneout": Zoneout({"h": 0.1})}, "with zoneout")]
    for options in ({"trace": True}, {"zoneout": Zoneout({"h": 0.1})}):
        refused.append((fused, options, "trace or with zoneout"))
    for kernel, options, reason in refused:
        with pytest.raises(KernelRefusal, match=reason):
            kernel.run(cell, params, torch.zeros(1, 2, 3), **options)


def test_transforms_get_a_kernel_that_can() -> None:
    layer = Recurrent(LSTM(3, 5), seed=0)
    x = torch.randn(4, 2, 6, 3)
    many = torch.func.vmap(lambda each: layer(each)[0])(x)
    assert layer.last_kernel == "reference"
    torch.testing.assert_close(many, torch.stack([layer(each)[0] for each in x]))
    assert layer.last_kernel == "native"
    hessian = torch.func.jacrev(torch.func.grad(lambda each: layer(each[None])[0].sum()))(x[0, 0])
    assert hessian.shape == (6, 3, 6, 3)
    assert hessian.any()


def test_nothing_is_saved_when_the_final_state_is_not_wanted() -> None:
    layer = Recurrent(LSTM(3, 5), seed=0)
    x = torch.randn(3, 7, 3)
    output, state = layer(x, LENGTHS, final_state=False)
    assert state is None
    torch.testing.assert_close(output, layer(x, LENGTHS)[0], rtol=1e-6, atol=1e-6)
