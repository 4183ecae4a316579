"""`hiddenstate kernels`: who would run a recurrent layer, who refuses and why, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hiddenstate.cells import Cell
    from hiddenstate.kernels import Request, Verdict

LARGEST = 2**27
"""Numbers that a shape may hold: inputs and gates of every step, and the weights."""

BUDGET_S = 1.0
DTYPES = ("float32", "float64")


class Order(NamedTuple):
    """An order of asking: where it stands, what each kernel says, and the seconds of those able."""

    name: str
    verdicts: list[Verdict]
    median_s: dict[str, float]


def kernels(
    cell: Annotated[str, typer.Option("--cell", metavar="NAME", help="gru, lstm or elman.")] = (
        "gru"
    ),
    input_size: Annotated[int, typer.Option("--input", help="Features D of x.", min=1)] = 64,
    hidden_size: Annotated[int, typer.Option("--hidden", help="Width H.", min=1)] = 128,
    batch: Annotated[int, typer.Option("--batch", help="Rows B.", min=1)] = 32,
    time: Annotated[int, typer.Option("--time", help="Steps T.", min=1)] = 64,
    train: Annotated[
        bool | None,
        typer.Option(
            "--train/--no-train",
            help="With the backward pass, in torch, or forward to the last state, as a model is "
            "served; training where torch is installed.",
        ),
    ] = None,
    ragged: Annotated[bool, typer.Option("--ragged", help="Rows of lengths T to 1.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Keep gates and states of every step.")
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="float32 or float64.")
    ] = DTYPES[0],
    threads: Annotated[
        int | None, typer.Option("--threads", help="Processor threads.", min=1)
    ] = None,
    json: s.Json = False,
    quiet: s.Quiet = False,  # noqa: ARG001 - every command has it, and this one never remarks
) -> None:
    """Ask every kernel about one recurrent layer, and time those that can run it.

    The first that does not refuse is the one that runs. Training asks the kernels of torch's
    layers, --no-train those that serve a model, on NumPy alone.

    [bold]Example:[/bold]  hiddenstate kernels --cell lstm --hidden 256 --ragged
    """
    from importlib.util import find_spec

    from hiddenstate.cells import CELLS, build
    from hiddenstate.cli.output import print_json
    from hiddenstate.kernels import Request, native

    _require("--cell", cell, sorted(CELLS))
    _require("--dtype", dtype, DTYPES)
    has_torch = find_spec("torch") is not None
    training = has_torch if train is None else train
    built = build(cell, input_size, hidden_size)
    _require_room(built, batch, time)
    request = Request(
        built,
        batch,
        time,
        dtype=dtype,
        ragged=ragged,
        needs_grad=training,
        needs_state=not training,
        needs_trace=trace,
    )
    order = (_in_torch if has_torch and training else _in_numpy)(request, threads)
    if json:
        print_json(_to_json(request, order, native.status()))
    else:
        _show(request, order, native.status())


def _in_torch(request: Request, threads: int | None) -> Order:
    import torch

    from hiddenstate.kernels import Scan, explain, timing
    from hiddenstate.nn import KERNELS

    given = timing.example(request)
    params = {
        name: torch.from_numpy(array).requires_grad_() for name, array in given.params.items()
    }
    x = torch.from_numpy(given.x).requires_grad_()
    lengths = None if given.lengths is None else torch.from_numpy(given.lengths)

    def backward(scan: Scan) -> None:
        torch.autograd.grad(scan.output.sum(), [x, *params.values()])

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        median_s = timing.measure(
            KERNELS,
            request,
            timing.Example(params, x, lengths),
            budget_s=BUDGET_S,
            then=backward,
        )
    finally:
        torch.set_num_threads(before)
    return Order("hiddenstate.nn.KERNELS", explain(KERNELS, request), median_s)


def _in_numpy(request: Request, threads: int | None) -> Order:
    from hiddenstate.kernels import KERNELS, NativeKernel, explain, timing

    # The reference runs as many threads as NumPy's library was started with.
    asked = (NativeKernel(threads), *KERNELS[1:])
    median_s = timing.measure(asked, request, timing.example(request), budget_s=BUDGET_S)
    return Order("hiddenstate.kernels.KERNELS", explain(asked, request), median_s)


def _require(flag: str, value: str, known: Iterable[str]) -> None:
    from hiddenstate.errors import UsageError, nearest

    if value not in known:
        raise UsageError(
            f"{flag} is {value!r}.",
            f"It takes {', '.join(known)}.",
            f"Choose one of them.{nearest(value, known)}",
        )


def _require_room(cell: Cell, batch: int, time: int) -> None:
    from hiddenstate.errors import UsageError

    step = cell.input_size + len(cell.blocks) * cell.hidden_size
    numbers = cell.parameter_count + batch * time * step
    if numbers > LARGEST:
        raise UsageError(
            f"A {cell.name} with --input {cell.input_size} and --hidden {cell.hidden_size} over "
            f"--batch {batch} and --time {time} holds {numbers:,} numbers.",
            f"Shapes are measured up to {LARGEST:,}, inputs, gates and weights together.",
            "Make one of the four smaller.",
        )


def _to_json(request: Request, order: Order, compiled: str) -> dict[str, object]:
    return {
        "cell": request.cell.to_json(),
        "convention": request.cell.convention,
        "batch": request.batch,
        "time": request.time,
        "dtype": request.dtype,
        "train": request.needs_grad,
        "ragged": request.ragged,
        "trace": request.needs_trace,
        "order": order.name,
        "compiled": compiled,
        "kernels": [
            {
                "kernel": verdict.kernel,
                "runs": verdict.runs,
                "refusals": verdict.refusals,
                "median_s": order.median_s.get(verdict.kernel),
            }
            for verdict in order.verdicts
        ],
    }


def _show(request: Request, order: Order, compiled: str) -> None:
    from rich.markup import escape

    from hiddenstate.cli.output import RESULTS, table

    cell = request.cell
    facts = [
        "training" if request.needs_grad else "forward only",
        *(["ragged"] if request.ragged else []),
        *(["traced"] if request.needs_trace else []),
    ]
    title = (
        f"{cell.name} ({cell.convention}), D={cell.input_size} H={cell.hidden_size} "
        f"B={request.batch} T={request.time}, {request.dtype}, {', '.join(facts)}"
    )
    rows = [
        [
            verdict.kernel,
            "refuses" if verdict.refusals else "runs" if verdict.runs else "could run",
            _duration(order.median_s.get(verdict.kernel)),
        ]
        for verdict in order.verdicts
    ]
    table(escape(title), ["kernel", "", "median"], rows)
    for verdict in order.verdicts:
        if verdict.refusals:
            RESULTS.print(f"{verdict.kernel} refuses: {'; '.join(verdict.refusals)}", markup=False)
    RESULTS.print(f"Asked from the top, in the order of {order.name}.", markup=False)
    RESULTS.print(compiled, markup=False)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"
