"""The gates of recurrent layers while a module trains, seen on a few rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from hiddenstate.diagnose.tracing.capture import trace
from hiddenstate.diagnose.tracing.observe import base_of
from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.nn.layer import Layer
from hiddenstate.nn.packed import unpack

SATURATED = 0.05
"""A gate is saturated within this share of its range from either end."""


class GateRows:
    """The gates of recurrent layers on a few rows of a training batch.

    A layer's arguments are kept at its first call after `arm` (of a cell, at its first calls), cut
    to a few rows and steps; it is traced on them later, out of the way of the training step.
    """

    def __init__(self, module: nn.Module, rows: int = 4, steps: int = 128) -> None:
        self._rows, self._steps = rows, steps
        self._armed = False
        self._kept: dict[str, list[tuple[Any, ...]]] = {}
        self._layers = dict(_outermost(module, ""))
        self._hooks = [
            each.register_forward_pre_hook(self._keeper(name), with_kwargs=True)
            for name, each in self._layers.items()
        ]

    def arm(self) -> None:
        """Keep the arguments of each layer's next call in training mode."""
        self._kept.clear()
        self._armed = True

    def take(self) -> list[LayerTrace]:
        """Trace the layers on what was kept; nothing more is kept until `arm`."""
        self._armed = False
        found: list[LayerTrace] = []
        for name, calls in self._kept.items():
            if not calls:
                continue
            layer = self._layers[name]
            try:
                with torch.no_grad():
                    traced = trace(layer, _joined(calls))
            except Exception as problem:
                # Whoever looks on must not end the training that he looks on at.
                logging.getLogger("hiddenstate").warning(
                    f"The gates of {name} cannot be watched: {problem}"
                )
                self.close()
                break
            for each in traced.layers:
                # A layer traced alone is called by its kind, one inside a stack by its place.
                inner = each.name.partition(".")[2] if base_of(layer) else each.name
                found.append(replace(each, name=f"{name}.{inner}".strip(".") or each.name))
        self._kept.clear()
        return found

    def close(self) -> None:
        """Take off every hook."""
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(layer: nn.Module, arguments: Any, named: Any) -> None:
            if not self._armed or not layer.training:
                return
            calls = self._kept.setdefault(name, [])
            of_steps = isinstance(layer, nn.RNNCellBase)
            if len(calls) >= (self._steps if of_steps else 1):
                return
            names = ("x", "lengths", "state") if isinstance(layer, Layer) else ("input", "hx")
            given = {**dict(zip(names, arguments)), **named}
            values = tuple(given.get(each) for each in names)
            # A cell's first step may come without a state, which the others have.
            if not of_steps or values[1] is not None:
                calls.append(_few(layer, values, self._rows, self._steps))

        return keep


def gate_statistics(layer: LayerTrace) -> dict[str, float]:
    """Return mean, share saturated and movement of each gate over the valid steps of a trace.

    The movement is the standard deviation over the steps of a row, mean over rows and units. Of a
    cell without gates they are those of h.
    """
    found = {}
    valid, gates = layer.valid, layer.gates._asdict() or {"h": layer.states.h}
    ranges = {"h": (-1.0, 1.0)} if getattr(layer.cell, "activation", "") == "tanh" else {}
    for name, gate in gates.items():
        low, high = {**ranges, **layer.cell.gate_ranges}.get(name, (-math.inf, math.inf))
        values = gate[valid]
        if not values.size:
            continue
        edge = SATURATED * (high - low)
        found[f"{name}/mean"] = float(values.mean())
        if math.isfinite(edge):
            ends = (values < low + edge) | (values > high - edge)
            found[f"{name}/saturated"] = float(ends.mean())
        spreads = [row[mask].std(0).mean() for row, mask in zip(gate, valid) if mask.sum() > 1]
        if spreads:
            found[f"{name}/moves"] = float(np.mean(spreads))
    return found


def _outermost(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the recurrent layers of a module that stand in no other one, by name."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | Layer):
        yield name, module
        return
    for key, child in module.named_children():
        yield from _outermost(child, f"{name}.{key}" if name else key)


def _few(layer: nn.Module, given: tuple[Any, ...], rows: int, steps: int) -> tuple[Any, ...]:
    """Return the arguments of a layer's call, cut to its first rows and steps, copied."""
    if isinstance(layer, nn.RNNCellBase):
        return tuple(_mapped(lambda each: each[:rows].clone(), each) for each in given)
    if isinstance(layer, Layer):
        x, lengths, state = given
        if isinstance(x, PackedSequence):
            x, lengths = unpack(x)
        if lengths is not None:
            lengths = torch.as_tensor(lengths)[:rows].clamp(max=steps)
        few = _mapped(lambda each: each[:rows].clone(), state)
        return x[:rows, :steps].detach().clone(), lengths, few
    assert isinstance(layer, nn.RNNBase)
    x, first = given
    # The state is [layers, B, H]; of a single sequence without an axis of rows, [layers, H].
    single = isinstance(x, Tensor) and x.ndim == 2
    few = first if single else _mapped(lambda each: each[:, :rows].clone(), first)
    if isinstance(x, PackedSequence):
        padded, lengths = unpack(x)
        kept = lengths[:rows].clamp(max=steps).cpu()
        x = pack_padded_sequence(padded[:rows, :steps], kept, True, enforce_sorted=False)
    elif single:
        x = x[:steps].detach().clone()
    else:
        x = (x[:rows, :steps] if layer.batch_first else x[:steps, :rows]).detach().clone()
    return (x,) if few is None else (x, few)


def _joined(calls: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the calls of a cell as one, their rows under each other."""
    if len(calls) == 1:
        return calls[0]
    return tuple(
        tuple(torch.cat(part) for part in zip(*each)) if isinstance(each[0], tuple)
        else torch.cat(each)
        for each in zip(*calls)
    )  # fmt: skip


def _mapped(cut: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Return a state, in tuples to any depth, with every tensor cut; None stays None."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return cut(state.detach())
    parts = (_mapped(cut, each) for each in state)
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
