"""`trace`: run a module once and record what every recurrent layer inside it does."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.subject.nested import tensors
from hiddenstate.diagnose.tracing.calls import array
from hiddenstate.diagnose.tracing.observe import METHODS, Watch, base_of
from hiddenstate.diagnose.tracing.record import LayerTrace, Trace
from hiddenstate.diagnose.tracing.remarks import about_calls, about_module
from hiddenstate.diagnose.tracing.replay import Ways, replay, ways_of
from hiddenstate.diagnose.tracing.sequences import runs_of
from hiddenstate.errors import ShapeError, SpecError


def trace(
    module: nn.Module,
    batch: Any,
    loss: Callable[[Any], Tensor] | None = None,
    *,
    lengths: Any | None = None,
    training: bool = False,
) -> Trace:
    """Run a module on a batch; return every state, gate and projection of its recurrent layers.

    Traced are torch.nn.RNN, LSTM and GRU, RNNCell, LSTMCell and GRUCell in loops, and hiddenstate's
    own layers, wherever they are inside the module. Its code stays as it is, and its output is that
    of an untraced run to the last bit.

    batch:    the module's arguments: (x,), (x, lengths), any tuple, or a mapping by name
    loss:     from what the module gives to a scalar; with it the gradient of every state at every
              step is recorded, through time and through all that lies above
    lengths:  [B], real steps of the batch's rows, to go with the trace. They change nothing: a
              layer that runs over padding is traced over padding
    training: True runs a module that is in training mode in it, else in evaluation mode, where no
              dropout hides what a layer reads

    Afterwards the module has its mode, its buffers and its gradients as before, and torch's random
    numbers go on as if nothing had been drawn. Raises SpecError for a module in which there is
    nothing to trace, ShapeError for a loss that is no scalar with a gradient.

    >>> found = trace(nn.LSTM(3, 4, batch_first=True), (torch.zeros(2, 5, 3),))
    >>> found.layer("lstm.l0").gates.f.shape
    (2, 5, 4)
    """
    places = _places(module)
    arguments, named = _arguments(batch)
    watch, cost = Watch(gradients=loss is not None), None
    remarks = list(about_module(module, training=training))
    with ExitStack() as stack:
        stack.enter_context(_kept(module, training=training))
        if loss is not None:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
        with watch.over(places):
            outputs = module(*arguments, **named)
        if loss is not None:
            cost = _scalar(loss(outputs))
            watch.collect(cost)
        # A model that explodes is traced as well.
        with np.errstate(over="ignore", invalid="ignore"):
            layers = _layers(watch, places, remarks)
    return Trace(
        layers,
        tuple(array(each) for _, each in tensors(outputs)),
        None if cost is None else float(cost.detach()),
        tuple(remarks),
        None if lengths is None else np.array(lengths, np.int64),
    )


def _layers(
    watch: Watch, places: Mapping[str, nn.Module], remarks: list[str]
) -> tuple[LayerTrace, ...]:
    """Return the traces of all sequences, and add what is to be said about them."""
    names = {module: name for name, module in places.items()}
    weights: dict[nn.Module, Ways] = {}
    count: Counter[nn.Module] = Counter()
    layers: list[LayerTrace] = []
    for run in runs_of(watch.calls):
        owner = run.calls[0].module
        if owner not in weights:
            weights[owner] = ways_of(owner)
        count[owner] += 1
        number = f"#{count[owner]}" if count[owner] > 1 else ""
        found = replay(f"{names[owner]}{{}}{number}", run.calls, weights[owner])
        remarks += about_calls(f"{names[owner]}{number}", run, found, asked=watch.gradients)
        layers += found
    idle = [name for name, module in places.items() if not count[module]]
    if idle and not layers:
        raise SpecError(
            f"The module's forward pass called none of its recurrent layers: {', '.join(idle)}.",
            "A trace shows what they do on the batch given.",
            "Give a batch, or arguments, with which the module uses them.",
        )
    remarks += [f"{name} was not called." for name in idle]
    return tuple(layers)


def _places(module: nn.Module) -> dict[str, nn.Module]:
    """Return the recurrent modules inside by name; raises SpecError where there are none."""
    if not isinstance(module, nn.Module):
        raise SpecError(
            f"trace got a {type(module).__name__}.",
            "It runs a torch.nn.Module.",
            "Give the module itself, not its class or its output.",
        )
    found = {}
    for name, each in module.named_modules():
        if base := base_of(each):
            # What torch.compile wraps is called _orig_mod there.
            path = [part for part in name.split(".") if part not in ("", "_orig_mod")]
            found[".".join(path) or base.__name__.lower()] = each
    if found:
        return found
    kinds = [base.__name__ for base in METHODS]
    leaves = [each for each in module.modules() if not any(True for _ in each.children())]
    held = Counter(getattr(each, "original_name", type(each).__name__) for each in leaves)
    scripted = any(isinstance(each, torch.jit.ScriptModule) for each in leaves)
    raise SpecError(
        f"There is no recurrent layer in this {type(module).__name__}. It holds "
        + ", ".join(f"{name} ({number})" for name, number in held.items())
        + (", in part compiled by TorchScript, which cannot be looked into." if scripted else "."),
        f"Traced are torch.nn's {', '.join(kinds[:-1])} and hiddenstate's {kinds[-1]}.",
        "Give the module as it was before it was scripted."
        if scripted
        else "Give the module that holds the recurrent layers, or look at this one by other means.",
    )


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    # A PackedSequence is a tuple to Python.
    if isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence):
        return tuple(batch), {}
    return (batch,), {}


@contextmanager
def _kept(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Leave mode, buffers and random numbers as they were; run compiled parts eagerly."""
    devices = {each.device.index for each in module.parameters() if each.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(sorted(devices)))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        modes = {each: each.training for each in module.modules()}
        buffers = [
            (part, name, buffer, buffer.detach().clone())
            for part in module.modules()
            for name, buffer in part.named_buffers(recurse=False)
        ]
        try:
            if not training and any(modes.values()):
                module.eval()
            yield
        finally:
            if not training and modes[module]:
                module.train()
            for each, mode in modes.items():
                each.training = mode
            for part, name, buffer, before in buffers:
                setattr(part, name, buffer)
                if not torch.equal(buffer, before):
                    with torch.no_grad():
                        buffer.copy_(before)


def _scalar(cost: Any) -> Tensor:
    if isinstance(cost, Tensor) and cost.numel() == 1 and cost.requires_grad:
        return cost.reshape(())
    found = type(cost).__name__
    if isinstance(cost, Tensor):
        found = f"tensor of shape {list(cost.shape)}"
        if cost.numel() == 1:
            found += " without a gradient (made by .detach(), from .item(), or under no_grad)"
    raise ShapeError(
        f"The loss gave a {found}.",
        "It is a function from the module's output to one number that autograd can go back from.",
        "Give for example loss=lambda output: functional.mse_loss(output, target).",
    )
