"""Anything at the boundary of the compiled kernels is refused by name or computed right.

HIDDENSTATE_FUZZ_EXAMPLES says how many calls of each kind are tried (default 100).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from torch._subclasses.fake_tensor import FakeTensorMode

from hiddenstate.kernels import native
from tests.laws.native_runs import SETS, compiled, drawn, kinds, using

pytestmark = [
    pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING),
    pytest.mark.filterwarnings("ignore:Sparse CSR"),
]
EXAMPLES = int(os.environ.get("HIDDENSTATE_FUZZ_EXAMPLES", "100"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES == 100)
NAMED = re.compile(
    r"\b([xabhyw]|h0|c0|first|lengths|kept|d[yhc]|[wpb]_[xhifo]|w_h|kind of cell|Narrow weights"
    r"|D|peepholes|parameters|arguments)\b"
)


@pytest.fixture(autouse=True)
def _buffers_are_nan() -> Iterator[None]:
    compiled.fill_with_nan(True)
    yield
    compiled.fill_with_nan(False)


def misaligned(a: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"?" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)


def frozen(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def between(a: np.ndarray) -> np.ndarray:
    """Elements five or nine bytes apart, at least two of them."""
    record = np.zeros(a.shape, [("mark", "u1"), ("value", a.dtype)])
    record["value"] = a
    return record["value"]


LAYOUTS: list[Callable[[np.ndarray], Any]] = [
    lambda a: a,
    frozen,
    misaligned,
    np.asfortranarray,
    lambda a: np.ascontiguousarray(a[::-1])[::-1],
    lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
    lambda a: np.repeat(a, 2, axis=0)[1::2],
    lambda a: np.broadcast_to(a[:1], a.shape),
    lambda a: np.broadcast_to(a[..., :1], a.shape),
    memoryview,
    torch.tensor,
    lambda a: torch.tensor(a.T.copy()).permute(*range(a.ndim)[::-1]),
    lambda a: torch.tensor(a[:1]).expand(a.shape),
    lambda a: torch.nn.Parameter(torch.tensor(a), requires_grad=a.dtype.kind == "f"),
]


def fake(a: np.ndarray) -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(a.shape, dtype=torch.tensor(a).dtype)


WRONG: list[Callable[[np.ndarray], Any]] = [
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.int32),
    lambda a: a.astype(bool),
    lambda a: a.astype(object),
    lambda a: a.astype(np.complex64),
    lambda a: a.astype("M8[s]"),
    lambda a: a.astype(np.longdouble),
    lambda a: a.astype(a.dtype.newbyteorder()),
    lambda a: a.astype(np.float64 if a.dtype == np.float32 else np.float32),
    lambda a: torch.tensor(a).bfloat16(),
    lambda a: torch.tensor(a).to("meta"),
    lambda a: torch.tensor(a).to_sparse(),
    fake,
    between,
    lambda a: a[None],
    lambda a: a[0],
    lambda a: np.concatenate([a, a[:1]]),
    lambda a: np.concatenate([a, a[..., :1]], -1),
    lambda a: a[:-1],
    lambda a: a[..., :0],
    lambda a: a.tolist(),
    lambda a: a.tobytes(),
    lambda _: "x",
    lambda _: 1.0,
    lambda _: np.float64(3.0),
    lambda a: a.dtype,
]


def disguised(random: Random, arguments: dict[str, Any], wrong: bool) -> dict[str, Any]:
    """Every array in some layout, and one of them, if `wrong`, in a form that does not fit."""
    arrays = [name for name, each in arguments.items() if isinstance(each, np.ndarray)]
    spoiled = random.choice(arrays) if wrong else ""
    found = dict(arguments)
    for name in arrays:
        with np.errstate(invalid="ignore"):  # what is kept past a row's length may be NaN
            found[name] = random.choice(WRONG if name == spoiled else LAYOUTS)(arguments[name])
    return found


def dense(each: Any) -> Any:
    if each is None or isinstance(each, (bool, int)):
        return each
    plain = each.detach().numpy() if isinstance(each, torch.Tensor) else np.asarray(each)
    return np.ascontiguousarray(plain)


def is_refused_or_right(call: Callable[..., Any], arguments: dict[str, Any], fits: bool) -> None:
    told = ""
    try:
        found = call(**arguments)
    except (ValueError, TypeError) as refusal:
        told = str(refusal)
    assert (told == "") == fits, told or arguments
    if told:
        assert NAMED.search(told), told
        return
    true = call(**{name: dense(each) for name, each in arguments.items()})
    for left, right in zip(found, true, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_array_equal(dense(left), right)


def sized(random: Random) -> tuple[Any, dict[str, np.ndarray], np.ndarray, Any, np.ndarray | None]:
    """A cell of any kind with arrays that fit it."""
    cell = random.choice(kinds(random.randint(1, 9), random.randint(2, 20)))
    batch, time = random.randint(2, 6), random.randint(2, 5)
    dtype = random.choice([np.float32, np.float64])
    params, x, state = drawn(cell, batch, time, dtype)
    lengths = np.array([random.randint(0, time) for _ in range(batch)])
    return cell, params, x, state, random.choice([None, lengths])


def run_forward(
    kind: Any, peephole: Any, writes: Any, precision: Any, x: Any, h0: Any, c0: Any, lengths: Any,
    reverse: Any, want: Any, threads: Any, **params: Any,
) -> Any:  # fmt: skip
    packed = compiled.Packed(kind, peephole, writes, native.parameters(params), precision)
    found = compiled.forward(packed, x, h0, c0, lengths, reverse, want, threads)
    # What is kept past a row's length is left as it was, unless it shall be cleared.
    kept = found[3:] if lengths is None or want & native.CLEAR else ()
    height = found[0].shape[2]
    return *found[:3], *(each if each is None else each[..., :height] for each in kept)


def run_backward(
    kind: Any, peephole: Any, writes: Any, x: Any, h0: Any, c0: Any, lengths: Any, reverse: Any,
    y: Any, kept: Any, dy: Any, dh: Any, dc: Any, needs_x: Any, threads: Any, **params: Any,
) -> Any:  # fmt: skip
    return compiled.backward(
        kind, peephole, writes, native.parameters(params), x, h0, c0, lengths, reverse, y, kept,
        dy, dh, dc, needs_x, threads,
    )  # fmt: skip


def first_of(random: Random, state: Any, wrong: bool) -> dict[str, np.ndarray | None]:
    h, c, *_ = (*state, None)  # without any of them, x may have any number of rows
    return {"h0": random.choice([h if wrong else None, h]), "c0": random.choice([None, c])}


THREADS = [1, 2, 3, 0, -1, 1000, 2**62]


@FUZZ
@given(random=some.randoms(use_true_random=False), wrong=some.booleans())
def test_forward(random: Random, wrong: bool) -> None:
    cell, params, x, state, lengths = sized(random)
    code = dict(zip(("kind", "peephole", "writes"), native.code_of(cell), strict=True))
    arguments = {**params, "x": x, **first_of(random, state, wrong), "lengths": lengths}
    precision = random.choice([0, 1, 2] if x.dtype == np.float32 else [0])
    with using(random.choice(SETS)):
        is_refused_or_right(
            run_forward,
            {
                **code,
                **disguised(random, arguments, wrong),
                "precision": precision,
                "reverse": random.choice([True, False]),
                "want": random.choice([*range(8), -1, 2**31 - 1]),
                "threads": random.choice(THREADS),
            },
            fits=not wrong,
        )


@FUZZ
@given(random=some.randoms(use_true_random=False), wrong=some.booleans())
def test_backward(random: Random, wrong: bool) -> None:
    cell, params, x, state, lengths = sized(random)
    first = first_of(random, state, wrong)
    given = (first["h0"], first["c0"], lengths, random.choice([True, False]))
    with using(random.choice(SETS)):
        packed = compiled.Packed(*native.code_of(cell), native.parameters(params))
        y, h, c, kept, _ = compiled.forward(packed, x, *given, native.KEPT, 1)
        arguments = {**params, "x": x, **first, "lengths": lengths, "y": y}
        arguments |= {"kept": kept, "dy": y, "dh": h, "dc": c}
        for name in ("dy", "dh", "dc"):
            arguments[name] = random.choice([None, arguments[name]])
        is_refused_or_right(
            run_backward,
            {
                **dict(zip(("kind", "peephole", "writes"), native.code_of(cell), strict=True)),
                **disguised(random, arguments, wrong),
                "reverse": given[3],
                "needs_x": random.choice([True, False]),
                "threads": random.choice(THREADS),
            },
            fits=not wrong,
        )


@FUZZ
@given(random=some.randoms(use_true_random=False), wrong=some.booleans())
def test_linear_scan(random: Random, wrong: bool) -> None:
    shape = (random.randint(2, 4), random.randint(2, 6), random.randint(2, 40))
    dtype = random.choice([np.float32, np.float64])
    rng = np.random.default_rng(0)
    a, b, dh = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    first = random.choice([None, rng.standard_normal((shape[0], shape[2])).astype(dtype)])
    threads = random.choice(THREADS)
    arguments = disguised(random, {"a": a, "b": b, "first": first}, wrong)
    with using(random.choice(SETS)):
        is_refused_or_right(
            lambda **each: [compiled.linear_scan(**each)],
            {**arguments, "threads": threads},
            fits=not wrong,
        )
        arguments = disguised(random, {"a": a, "h": b, "first": first, "dh": dh}, wrong)
        is_refused_or_right(
            compiled.linear_scan_backward, {**arguments, "threads": threads}, fits=not wrong
        )


@FUZZ
@given(random=some.randoms(use_true_random=False), wrong=some.booleans())
def test_linear(random: Random, wrong: bool) -> None:
    inputs, outputs, n = (random.randint(2, 40) for _ in range(3))
    rng = np.random.default_rng(0)
    w, b, x = (
        rng.standard_normal(s).astype(np.float32)
        for s in ((outputs, inputs), (outputs,), (n, inputs))
    )
    arguments = disguised(
        random, {"w": w, "b": random.choice([b if wrong else None, b]), "x": x}, wrong
    )
    given_x = arguments["x"]
    plain = isinstance(given_x, np.ndarray) and given_x.dtype == x.dtype
    assume(not (wrong and plain and given_x.shape[1:] == (inputs,)))  # any number of rows is right
    threads = random.choice(THREADS)

    def run(w: Any, b: Any, x: Any) -> Any:
        return [compiled.Linear(w, b).run(x, threads)]

    with using(random.choice(SETS)):
        is_refused_or_right(run, arguments, fits=not wrong)


def weights(cell: Any, **changed: Any) -> tuple[Any, ...]:
    return native.parameters({**drawn(cell, 1, 1)[0], **changed})


RNN, RICH = kinds(3, 5)[0], kinds(3, 5)[5]
NO_CALLS: list[tuple[str, Callable[[], Any]]] = [
    ("no such kind", lambda: compiled.Packed(-1, False, False, weights(RNN))),
    ("no such kind", lambda: compiled.Packed(7, False, False, weights(RNN))),
    ("arguments", lambda: compiled.Packed(2**40, False, False, weights(RNN))),
    ("arguments", lambda: compiled.Packed(None, False, False, weights(RNN))),
    ("arguments", lambda: compiled.Packed(0.5, False, False, weights(RNN))),
    ("Only an LSTM has peepholes", lambda: compiled.Packed(0, True, False, weights(RNN))),
    ("peepholes given", lambda: compiled.Packed(4, True, False, weights(RICH, p_i=None))),
    ("peepholes given", lambda: compiled.Packed(4, False, False, weights(RICH))),
    ("w_x is float32", lambda: compiled.Packed(2, False, False, weights(RNN))),
    ("w_x and w_h", lambda: compiled.Packed(0, False, False, (None,) * 7)),
    ("no tuple", lambda: compiled.Packed(0, False, False, weights(RNN)[:6])),
    ("no tuple", lambda: compiled.Packed(0, False, False, list(weights(RNN)))),
    ("Narrow", lambda: compiled.Packed(0, False, False, weights(RNN), 3)),
    ("Narrow", lambda: compiled.Packed(0, False, False, weights(RNN), -1)),
    ("D is 0", lambda: compiled.Packed(0, False, False, weights(RNN, w_x=np.ones((5, 0), "f")))),
    ("no instruction set", lambda: compiled.select("sse9")),
    ("at least one row", lambda: compiled.Stepper(packed(), 0)),
    ("at least one row", lambda: compiled.Stepper(packed(), -1)),
    ("argument", lambda: compiled.Stepper(None, 1)),
    ("float32", lambda: compiled.Stepper(packed(np.float64), 1)),
    (
        "taken before",
        lambda: [stepper := compiled.Stepper(packed(), 1), stepper.arrays(), stepper.arrays()],
    ),
    ("at least one row", lambda: compiled.Linear(np.ones((0, 3), "f"), None)),
    ("w is float64", lambda: compiled.Linear(np.ones((2, 3)), None)),
    ("one axis", lambda: compiled.tanh(np.ones((2, 3), "f"))),
    ("x is float64", lambda: compiled.sigmoid(np.ones(3))),
    ("is -1, expected 0 to 4", lambda: lengthy([4, -1])),
    ("is 5, expected 0 to 4", lambda: lengthy([5, 0])),
    ("is 9223372036854775807", lambda: lengthy([2**63 - 1, 0])),
    ("arguments", lambda: lengthy([4, 4], reverse=None)),
    ("arguments", lambda: lengthy([4, 4], want=None)),
    ("arguments", lambda: lengthy([4, 4], want=2**40)),
    ("arguments", lambda: lengthy([4, 4], threads=1.5)),
    ("arguments", lambda: lengthy([4, 4], threads=2**70)),
    ("arguments", lambda: lengthy([4, 4], x=None)),
    ("y or kept is missing", lambda: back(y=None)),
    ("y or kept is missing", lambda: back(kept=None)),
    ("kept is", lambda: back(kept=np.zeros((2, 4, 5, 5), np.float32))),
    ("kept is", lambda: back(kept=np.zeros((2, 4, 4, compiled.padded(5)), np.float32))),
    ("x is int64", lambda: back(x=np.zeros((2, 4, 3), np.int64))),
]


def packed(dtype: Any = np.float32) -> Any:
    return compiled.Packed(0, False, False, native.parameters(drawn(RNN, 1, 1, dtype)[0]))


def lengthy(lengths: list[int], **changed: Any) -> Any:
    usual = {"reverse": False, "want": 0, "threads": 1, "x": np.zeros((2, 4, 3), np.float32)}
    return compiled.forward(
        packed(), h0=None, c0=None, lengths=np.array(lengths), **usual | changed
    )


def back(**changed: Any) -> Any:
    cell = kinds(3, 5)[2]
    code = dict(zip(("kind", "peephole", "writes"), native.code_of(cell), strict=True))
    params, x, (h0, c0) = drawn(cell, 2, 4)
    kept = np.zeros((2, 4, 5, compiled.padded(5)), np.float32)
    usual = {"x": x, "h0": h0, "c0": c0, "lengths": None, "reverse": False, "kept": kept}
    usual |= {"y": np.zeros((2, 4, 5), np.float32), "dy": None, "dh": None, "dc": None}
    return run_backward(**code, **params, **usual | changed, needs_x=True, threads=1)


@pytest.mark.parametrize(("told", "call"), NO_CALLS)
def test_what_makes_no_sense_is_told(told: str, call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        call()


def test_tensors_without_memory_are_refused() -> None:
    x = torch.zeros(2, 4, 3)
    told: list[str] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        with pytest.raises(ValueError, match="x is no array of numbers in the memory of the CPU"):
            lengthy([4, 4], x=x)
        told.append(type(x).__name__)
        return x.sum()

    torch.func.vmap(look)(x[None])
    torch.func.grad(look)(x)
    torch.func.functionalize(look)(x)
    look(torch.empty_strided((2, 4, 3), (0, 0, 0), device="meta"))
    assert len(told) == 4
