"""What the recurrent modules inside a module are called with and give, noted while it runs.

For the time of one pass each of them gets a class of its own whose one changed method notes a call
and hands on what the module computes, as torch.nn.utils.parametrize does. Unlike a hook it also
sees calls of `forward` itself and those that a subclass's own `forward` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from hiddenstate.diagnose.tracing.calls import Call, Layout, array, by_name, narrow_type
from hiddenstate.kernels import Scan, choose
from hiddenstate.nn import KERNELS, Recurrent
from hiddenstate.nn.kernels import request_for

METHODS: Mapping[type[Any], str] = {
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell), "forward"),
    Recurrent: "run",
}
"""Every class that is traced, with the method in which it computes."""

Note: TypeAlias = Callable[..., Any]
"""(module, the method as its class has it, its arguments) -> what the method gives."""

_NOTES: dict[int, Note] = {}
"""By identity, what is done at a call of each module that is watched now."""


def base_of(module: nn.Module) -> type[Any] | None:
    """Return the class of `METHODS` that a module is one of, or None."""
    return next((base for base in METHODS if isinstance(module, base)), None)


def hides_layers(module: nn.Module) -> bool:
    """Return whether layers above the first read what noise inside the operator left of it."""
    fused = isinstance(module, nn.RNNBase) and module.num_layers > 1
    return bool(fused and module.training and module.dropout)


def _noted(base: type[Any]) -> type[Any]:
    """Return a subclass whose method asks `_NOTES` first; a copy of a module is not in it."""
    method = METHODS[base]
    compute = getattr(base, method)

    def call(own: Any, *given: Any, **named: Any) -> Any:
        note = _NOTES.get(id(own))
        if note is None:
            return compute(own, *given, **named)
        return note(own, partial(compute, own), *given, **named)

    return type(base.__name__, (base,), {method: call})


_NOTED = {base: _noted(base) for base in METHODS}


class Watch:
    """Notes the calls of some modules.

    gradients: places are noted at which `collect` reads gradients
    """

    def __init__(self, *, gradients: bool) -> None:
        self.gradients = gradients
        self.calls: list[Call] = []

    @contextmanager
    def over(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Watch these modules until the block ends, however it ends."""
        before = [(each, type(each), _NOTES.get(id(each))) for each in modules.values()]
        try:
            for module, kind, _ in before:
                base = base_of(module)
                assert base is not None
                seen = _NOTED[base]
                if kind is base:
                    module.__class__ = seen
                elif not issubclass(kind, seen):  # else a trace within a trace
                    # Behind the user's class, before torch's: its super().forward comes here.
                    module.__class__ = type(kind.__name__, (kind, seen), {})
                _NOTES[id(module)] = self._note_of(base)
            yield
        finally:
            for module, kind, note in before:
                module.__class__ = kind
                _NOTES.pop(id(module), None)
                if note is not None:
                    _NOTES[id(module)] = note

    def collect(self, cost: Tensor) -> None:
        """Read dL/d(output) and dL/d(last state) of every call that the loss depends on."""
        taps = [(call, name) for call in self.calls for name in call.tapped]
        edges = [call.tapped[name] for call, name in taps]
        found = torch.autograd.grad(cost, edges, allow_unused=True) if edges else ()
        for (call, name), gradient in zip(taps, found):
            if gradient is not None:
                read = call.layout.sequence if name == "output" else call.layout.state
                call.gradients[name] = read(gradient)

    def _note_of(self, base: type[Any]) -> Note:
        if base is Recurrent:
            return self._recurrent
        return self._fused if issubclass(base, nn.RNNBase) else self._cell

    def _fused(self, module: Any, run: Callable[..., Any], input: Any, hx: Any = None) -> Any:
        """Note a call of nn.RNN, nn.LSTM or nn.GRU."""
        with _way_back(module, self._reads_gradients):
            output, last = run(input, hx)
        given, returned = _parts(hx), _parts(last)
        if isinstance(input, PackedSequence):
            layout = Layout(input, "BT", "NB")
            lengths = pad_packed_sequence(input)[1].numpy().copy()
            handed = self._note(
                module, layout, input.data, given, output.data, returned, lengths=lengths
            )
            output = PackedSequence(handed["output"], *output[1:])
        else:
            lead = "T" if input.ndim == 2 else "BT" if module.batch_first else "TB"
            layout = Layout(None, lead, "NB" if "B" in lead else "N")
            handed = self._note(module, layout, input, given, output, returned)
            output = handed["output"]
        return output, (handed["h"], handed["c"]) if "c" in handed else handed["h"]

    def _cell(self, module: Any, run: Callable[..., Any], input: Tensor, hx: Any = None) -> Any:
        """Note a call of nn.RNNCell, nn.LSTMCell or nn.GRUCell: one step."""
        new = run(input, hx)
        rows = "B" if input.ndim == 2 else ""
        handed = self._note(module, Layout(None, rows, rows), input, _parts(hx), None, _parts(new))
        return (handed["h"], handed["c"]) if "c" in handed else handed["h"]

    def _recurrent(
        self,
        layer: Recurrent,
        run: Callable[..., Any],
        x: Tensor,
        lengths: Tensor | None,
        state: Any | None,
        *,
        final_state: bool = True,
        scans: list[Scan] | None = None,
    ) -> Any:
        """Note a call of hiddenstate's Recurrent, with the trace that its kernel keeps anyway."""
        request = request_for(
            layer.cell,
            x,
            ragged=lengths is not None,
            reverse=layer.reverse,
            needs_grad=torch.is_grad_enabled(),
            needs_state=final_state or state is not None,
            zoneout=bool(layer.zoneout),
        )
        kept = scans
        if not choose(KERNELS, request, layer.kernel).refusals(replace(request, needs_trace=True)):
            kept = [] if scans is None else scans
        ran: list[Mapping[str, Tensor]] = []
        noise = layer.dropconnect.register_forward_hook(lambda *each: ran.append(each[2]))
        try:
            output, last = run(x, lengths, state, final_state=final_state, scans=kept)
        finally:
            noise.remove()
        noisy = layer.training and layer.dropconnect.share > 0
        handed = self._note(
            layer,
            Layout(None, "BT", "B"),
            x,
            tuple((layer.initial_state(x.shape[0]) if state is None else state) or ()),
            output,
            tuple(last or ()),
            lengths=None if lengths is None else lengths.cpu().numpy().astype(np.int64),
            steps=None if kept is None else by_name(kept[-1]),
            kernel=layer.last_kernel,
            params={name: array(each) for name, each in ran[-1].items()} if noisy else None,
        )
        if last is not None:
            last = layer.cell.State(*(handed[name] for name in layer.cell.state_shapes()))
        return handed["output"], last

    def _note(
        self,
        module: Any,
        layout: Layout,
        read: Tensor,
        given: tuple[Tensor, ...],
        output: Tensor | None,
        returned: tuple[Tensor, ...],
        **more: Any,
    ) -> dict[str, Tensor]:
        """Keep a call; return what is handed on: the last state by name, and the output."""
        names = module.cell.State._fields if isinstance(module, Recurrent) else ("h", "c")
        tapped = {name: self._tapped(each) for name, each in zip(names, returned)}
        if output is not None:
            tapped["output"] = self._tapped(output)
        handed = {name: tensor for name, (tensor, _) in tapped.items()}
        last = {name: layout.state(handed[name]) for name in names if name in handed}
        steps = more.get("steps")
        call = Call(
            module,
            layout,
            x=layout.sequence(read),
            lengths=more.pop("lengths", None),
            first={name: layout.state(each) for name, each in zip(names, given)} or None,
            output=layout.sequence(handed.get("output", handed["h"]))
            if steps is None
            else steps["output"],
            last=last or None,
            device=read.device.type,
            narrow=narrow_type(read),
            given=given,
            returned=tuple(handed[name] for name in last),
            tapped={name: edge for name, (_, edge) in tapped.items() if edge is not None},
            **more,
        )
        self.calls.append(call)
        return handed

    @property
    def _reads_gradients(self) -> bool:
        return self.gradients and torch.is_grad_enabled()

    def _tapped(self, tensor: Tensor) -> tuple[Tensor, GradientEdge | None]:
        """Return a tensor with the place at which its gradient will be read."""
        if not self._reads_gradients:
            return tensor, None
        if not tensor.requires_grad:  # every weight below is frozen
            tensor = tensor.detach().requires_grad_()
        # An h may have been computed from the c beside it, or be the output's last step. A copy's
        # gradient is that of its later use alone.
        tensor = tensor.clone()
        return tensor, get_gradient_edge(tensor)


def _parts(state: Any) -> tuple[Tensor, ...]:
    """Return the arrays of one of torch's states: none, h, or h and c."""
    if state is None:
        return ()
    return (state,) if isinstance(state, Tensor) else tuple(state)


@contextmanager
def _way_back(module: nn.RNNBase, wanted: bool) -> Iterator[None]:
    """Let cuDNN keep what gradients need, which it does in training mode only: without dropout."""
    if not wanted or module.training or not module.weight_ih_l0.is_cuda:
        yield
        return
    share = module.dropout
    module.training, module.dropout = True, 0.0
    try:
        yield
    finally:
        module.training, module.dropout = False, share
