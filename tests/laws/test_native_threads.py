"""The compiled kernels on several threads: rows or columns are shared out, and no bit changes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import LSTM, Cell
from hiddenstate.kernels import Stepper, native
from tests.laws.cell_cases import label
from tests.laws.native_runs import SETS, bits_differ, compiled, drawn, fast, gradients, kinds, using

pytestmark = pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)


@pytest.fixture(autouse=True)
def _buffers_are_nan() -> Iterator[None]:
    compiled.fill_with_nan(True)
    yield
    compiled.fill_with_nan(False)


@pytest.fixture(params=SETS)
def isa(request: Any) -> Iterator[str]:
    with using(request.param):
        yield request.param


@pytest.mark.parametrize("cell", kinds(32, 96), ids=label)
def test_threads_change_no_bit(cell: Cell) -> None:
    # Some 25 million operations for the smallest cell, half of it ragged: worth 3 threads.
    params, x, state = drawn(cell, 33, 32)
    ragged = np.random.default_rng(2).integers(0, 33, 33)
    for lengths in (None, ragged):
        for reverse in (False, True):
            given = (cell, params, x, state, lengths)
            one, *others = (
                fast(*given, reverse=reverse, trace=True, threads=n) for n in (1, 2, 3, 1000)
            )
            assert not any(bits_differ(other, one) for other in others)
            one, *others = (gradients(*given, reverse=reverse, threads=n) for n in (1, 2, 3, 1000))
            assert not any(bits_differ(other, one) for other in others)


# H = 200 is no multiple of a vector, nor of what columns are shared out by.
@pytest.mark.parametrize("weights", native.STORAGES)
@pytest.mark.parametrize("cell", kinds(200, 200), ids=label)
def test_threads_that_share_columns_change_no_bit(
    cell: Cell, weights: native.Storage, isa: str
) -> None:
    # Some 9 million operations for the smallest cell, 80 thousand a step: worth sharing.
    for batch, time in ((1, 60), (3, 30)):
        params, x, state = drawn(cell, batch, time)
        ragged = np.array([time - 7, time, 1][:batch])
        for lengths in (None, ragged):
            for reverse in (False, True):
                given = (cell, params, x, state, lengths)
                one, *others = (
                    fast(*given, reverse=reverse, trace=True, threads=n, weights=weights)
                    for n in (1, 2, 3)
                )
                assert not any(bits_differ(other, one) for other in others)


@pytest.mark.parametrize("weights", native.STORAGES)
@pytest.mark.parametrize("batch", [1, 5, 40])
@pytest.mark.parametrize("cell", kinds(192, 256), ids=label)
def test_threads_change_no_bit_of_a_step(
    cell: Cell, batch: int, weights: native.Storage, isa: str
) -> None:
    time = 2 if batch == 40 else 12
    params, x, state = drawn(cell, batch, time)
    found = []
    for threads in (1, 2, 3):
        stepper = Stepper(cell, params, batch, weights, threads)
        for array, first in zip(stepper.state, state, strict=True):
            array[:] = first
        outputs = []
        for t in range(time):
            if t == time // 2:
                sleep(0.001)  # helpers fall asleep, or come late
            stepper.x[:] = x[:, t]
            stepper.step()
            outputs.append(stepper.state.h.copy())
        last = {f"state.{name}": each.copy() for name, each in stepper.state._asdict().items()}
        found.append({"output": np.stack(outputs, 1), **last})
    one, *others = found
    assert not any(bits_differ(other, one) for other in others)
    assert not bits_differ(one, fast(cell, params, x, state, weights=weights))


def test_steps_at_the_same_time_and_in_a_fork() -> None:
    cell = LSTM(256, 256)
    params, x, state = drawn(cell, 1, 200)
    whole = fast(cell, params, x, state)["output"][0]

    def stepped() -> bool:
        stepper = Stepper(cell, params, threads=2)
        for array, first in zip(stepper.state, state, strict=True):
            array[:] = first
        for t in range(200):
            stepper.x[:] = x[:, t]
            stepper.step()
            if not np.array_equal(stepper.state.h[0], whole[t]):
                return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert all(future.result() for future in [pool.submit(stepped) for _ in range(9)])
    if hasattr(os, "fork"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fork where there are threads, ours or JAX's
            child = os.fork()
        if child == 0:
            os._exit(0 if stepped() else 1)
        assert os.waitpid(child, 0)[1] == 0
