"""Every step of a noted call, computed again from the layer's weights by the compiled kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import nn

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.cells.state import map_state
from hiddenstate.diagnose.tracing.calls import Call, Named, array, by_name
from hiddenstate.diagnose.tracing.observe import hides_layers
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace
from hiddenstate.diagnose.tracing.through_time import flat, through_time
from hiddenstate.kernels import NativeKernel, ReferenceKernel, Request, choose
from hiddenstate.nn import Recurrent
from hiddenstate.nn.exchange import cell_of


class Way(NamedTuple):
    """One layer of a module in one direction.

    suffix: what its name has behind the module's
    """

    suffix: str
    cell: Cell
    params: Mapping[str, Floats]
    reverse: bool = False


Ways: TypeAlias = tuple[tuple[Way, ...], ...]
"""The directions of every layer."""


def ways_of(module: nn.Module) -> Ways:
    """Return what a module runs, with copies of its weights."""
    if isinstance(module, Recurrent):
        params = {name: array(weight) for name, weight in module.params.items()}
        return ((Way("", module.cell, params, module.reverse),),)
    if isinstance(module, nn.RNNCell | nn.LSTMCell | nn.GRUCell):
        return ((_one_step(module),),)
    fused = cast("nn.RNN | nn.LSTM | nn.GRU", module)

    def way(k: int, reverse: bool) -> Way:
        cell, params = cell_of(fused, k, reverse=reverse)
        copies = {name: array(weight) for name, weight in params.items()}
        return Way(f".l{k}{'.reverse' * reverse}", cell, copies, reverse)

    count = 1 if hides_layers(fused) else fused.num_layers
    directions = (False, True) if fused.bidirectional else (False,)
    return tuple(tuple(way(k, reverse) for reverse in directions) for k in range(count))


def replay(name: str, calls: Sequence[Call], ways: Ways) -> list[LayerTrace]:
    """Return what the layers of a module did in one call, or in the single steps of a sequence.

    All states before those steps are known, so they run at once, as rows of a batch. `name` is the
    module's, with {} for what stands for a layer of it.
    """
    call = calls[0] if len(calls) == 1 else _as_rows(calls)
    x, place = call.x.astype(ways[0][0].params["w_x"].dtype, copy=False), 0
    layers: list[list[LayerTrace]] = []
    for directions in ways:
        own: list[Floats | None] = [None] * len(directions)
        if directions is ways[-1] and not hides_layers(call.module):
            own = [*np.split(call.output, len(directions), axis=-1)]
        layers.append([])
        outputs: list[Floats] = []
        for way, gave in zip(directions, own):
            trace, output = _run(name.format(way.suffix), way, call, place, x, gave)
            layers[-1].append(trace)
            outputs.append(output)
            place += 1
        x = np.concatenate(outputs, axis=-1)
    if call.tapped and _known(call):
        layers = _with_gradients(call, ways, layers)
    found = [trace for directions in layers for trace in directions]
    return found if len(calls) == 1 else [_folded(trace, len(calls)) for trace in found]


def _run(
    name: str, way: Way, call: Call, place: int, x: Floats, gave: Floats | None
) -> tuple[LayerTrace, Floats]:
    """Return the trace of one layer and direction over x [B, T, D], and its output.

    place: its number among the layers and directions
    gave:  its own output, None where that is not seen
    """
    cell, (batch, time, _) = way.cell, x.shape
    lengths = np.full(batch, time, np.int64)
    if call.lengths is not None:
        lengths = call.lengths
        x = np.where((np.arange(time) < lengths[:, None])[..., None], x, 0)
    first = cell.initial_state(NUMPY, batch, x)
    if call.first is not None:
        first = cell.State(*(call.first[each][place].astype(x.dtype) for each in first._fields))
    params, steps, kernel = call.params or way.params, call.steps, call.kernel
    if steps is None:
        request = Request(
            cell,
            batch,
            time,
            str(x.dtype),
            ragged=call.lengths is not None,
            reverse=way.reverse,
            needs_trace=True,
        )
        chosen = choose((NativeKernel(torch.get_num_threads()), ReferenceKernel(NUMPY)), request)
        ran = chosen.run(cell, params, x, first, call.lengths, reverse=way.reverse, trace=True)
        steps, kernel = by_name(ran), chosen.name
    trace = LayerTrace(
        name,
        cell,
        params,
        way.reverse,
        kernel,
        x,
        lengths,
        first,
        cell.State(*(steps[f"states/{each}"] for each in cell.State._fields)),
        cell.Gates(*(steps[f"gates/{each}"] for each in cell.Gates._fields)),
        steps["projected"],
    )
    if call.steps is not None:
        return trace, steps["output"]
    difference = 0.0
    if gave is not None:
        difference = _largest(gave, steps["output"])
    if time and call.last is not None:
        ended = trace.states.h[:, 0 if way.reverse else -1]
        difference = float(np.maximum(difference, _largest(call.last["h"][place], ended)))
    return replace(trace, difference=difference), steps["output"]


def _largest(left: Floats, right: Floats) -> float:
    """Return the largest |difference|, none between two NaN or the same infinity."""
    largest = float(np.abs(left - right).max(initial=0.0))
    if np.isfinite(largest):
        return largest
    alike = (left == right) | (np.isnan(left) & np.isnan(right))
    return float(np.where(alike, 0, np.abs(left - right)).max(initial=0.0))


def _with_gradients(
    call: Call, ways: Ways, layers: list[list[LayerTrace]]
) -> list[list[LayerTrace]]:
    """Return the traces with the gradients of their states, from the top layer down."""
    place, found = sum(map(len, ways)), []
    above = call.gradients.get("output")
    zoneout = call.module.zoneout if isinstance(call.module, Recurrent) else None
    for directions, traces in zip(reversed(ways), reversed(layers)):
        place -= len(directions)
        parts = [None] * len(traces) if above is None else np.split(above, len(traces), axis=-1)
        done, above = [], None
        for k, (trace, part) in enumerate(zip(traces, parts)):
            dtype = trace.x.dtype
            last = {
                name: call.gradients[name][place + k].astype(dtype, copy=False)
                for name in trace.first._fields
                if name in call.gradients
            }
            part = None if part is None else part.astype(dtype, copy=False)
            gradients, rows = through_time(trace, part, last, zoneout)
            done.append(replace(trace, gradients=gradients))
            if place:
                below = flat(rows) @ trace.params["w_x"]
                above = below if above is None else above + below
        found.append(done)
    return found[::-1]


def _known(call: Call) -> bool:
    """Return whether the noise on the way back is known."""
    module = call.module
    if isinstance(module, Recurrent):
        return not (module.zoneout and module.training)
    return not hides_layers(module)


def _one_step(module: nn.RNNCell | nn.LSTMCell | nn.GRUCell) -> Way:
    names = {"w_x": "weight_ih", "w_h": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh"}
    weights = {name: getattr(module, theirs) for name, theirs in names.items()}
    params = {name: array(weight) for name, weight in weights.items() if weight is not None}
    sizes = (module.input_size, module.hidden_size, len(params) - 2)
    cell: Cell
    if isinstance(module, nn.LSTMCell):
        cell = LSTM(*sizes)
    elif isinstance(module, nn.GRUCell):
        cell = GRU(*sizes)
    else:
        cell = Elman(*sizes, activation="relu" if module.nonlinearity == "relu" else "tanh")
    return Way("", cell, params)


def _as_rows(calls: Sequence[Call]) -> Call:
    """Return T calls of one step each as one call of B*T rows, row b*T + t."""

    def joined(each: Sequence[Named], axes: int) -> Named:
        return {name: _rows([one[name] for one in each], axes) for name in each[0]}

    began, after = calls[0], calls[1].first or {}
    zeros = {name: np.zeros_like(each) for name, each in after.items()}
    lasts = [call.last for call in calls if call.last is not None]
    steps = [call.steps for call in calls if call.steps is not None]
    known = all(call.tapped for call in calls)
    gradients = [_filled(call) for call in calls] if known else []
    outputs = [{"output": each.pop("output")} for each in gradients if "output" in each]
    return replace(
        began,
        x=_rows([call.x for call in calls]),
        first=joined([call.first or zeros for call in calls], 1),
        output=_rows([call.output for call in calls]),
        last=joined(lasts, 1) if len(lasts) == len(calls) else None,
        steps=joined(steps, 0) if len(steps) == len(calls) else None,
        tapped=began.tapped if known else {},
        gradients={
            **(joined(outputs, 0) if outputs else {}),
            **(joined(gradients, 1) if gradients else {}),
        },
    )


def _rows(arrays: Sequence[Floats], axis: int = 0) -> Floats:
    """Join T arrays [..., B, ...], B at this axis, to one [..., B*T, ...]."""
    each = np.stack(arrays, axis=axis + 1)
    rows, steps = each.shape[axis : axis + 2]
    return each.reshape(*each.shape[:axis], rows * steps, *each.shape[axis + 2 :])


def _filled(call: Call) -> Named:
    """Return the gradients of a call, with zeros where the loss does not depend on it."""
    like = {"output": call.output, **(call.last or {})}
    return {name: call.gradients.get(name, np.zeros_like(like[name])) for name in call.tapped}


def _folded(trace: LayerTrace, steps: int) -> LayerTrace:
    """Return the trace of rows b*T + t as that of B rows of T steps."""

    def fold(each: Any) -> Any:
        return each.reshape(len(each) // steps, steps, *each.shape[2:])

    x = fold(trace.x)
    return replace(
        trace,
        x=x,
        lengths=np.full(len(x), steps),
        first=map_state(lambda each: fold(each[:, None])[:, 0], trace.first),
        states=map_state(fold, trace.states),
        gates=map_state(fold, trace.gates),
        projected=fold(trace.projected),
        gradients=map_state(fold, trace.gradients),
    )
