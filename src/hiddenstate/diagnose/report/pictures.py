"""A trace in pictures: what every unit held, which gates let it, and how far back it reaches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hiddenstate.charts import Picture
from hiddenstate.diagnose.measures.memory import memory
from hiddenstate.diagnose.measures.roles import block
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace, Trace

if TYPE_CHECKING:
    from hiddenstate.diagnose.report.report import Report

MOST_LAYERS = 8
"""Layers that are shown unit by unit; a page of more cannot be read."""
BINS = 20


class Group(NamedTuple):
    """Pictures that belong together, and a sentence on where they come from."""

    title: str
    pictures: list[Picture]
    note: str = ""


def groups(report: Report) -> list[Group]:
    """Return what is shown beside the findings: the whole model first, then layer by layer."""
    layers = () if report.trace is None else report.trace.layers
    seen = [layer for layer in layers if layer.lengths.size and layer.lengths.max() > 0]
    found = [
        Group("Scores and influence", list(report.pictures)),
        Group("Memory through time", [*_memory(seen), *_gradient(seen)]),
        *(
            Group(f"Layer {each.name}", list(_layer(each, report)), _about(each))
            for each in seen[:MOST_LAYERS]
        ),
    ]
    return [group for group in found if group.pictures]


def longest(trace: Trace) -> int:
    """Return the row of a trace that has most steps, in the first layer."""
    return int(np.argmax(trace.layers[0].lengths)) if trace.layers else 0


def _about(layer: LayerTrace) -> str:
    """Return what the layer is, and how far its trace is from what it gave itself."""
    cell = layer.cell
    order = ", read from the end" if layer.reverse else ""
    return (
        f"{cell.name} {cell.hidden_size} ({cell.convention}){order}. Traced by {layer.kernel}, at "
        f"most {layer.difference:.1g} away from the layer's own output."
    )


def _memory(layers: Iterable[LayerTrace]) -> Iterator[Picture]:
    """Yield how much of a state's change is left k steps later, and what the gates let through."""
    curves: dict[str, Floats] = {}
    lags: Floats = np.zeros(0)
    for layer in layers:
        if not _is_finite(layer):
            continue
        found = memory(layer)
        lags = found.lags.astype(float) if len(found.lags) > len(lags) else lags
        curves[layer.name] = found.gain
    if curves and len(lags) > 1:
        yield Picture(
            "lines",
            "Memory by lag",
            "lag (steps)",
            "|d state(t) / d state(t - lag)|",
            curves,
            x=lags,
            log_y=True,
            note="How much a small change of the state matters so many steps later, root mean "
            "square along real sequences. A line that falls is a memory that fades.",
        )


def _gradient(layers: Iterable[LayerTrace]) -> Iterator[Picture]:
    """Yield the size of the loss's gradient at each state, counted back from each row's end."""
    curves = {}
    for layer in layers:
        if layer.gradients is None:
            continue
        read = layer.turned()
        parts = np.concatenate(tuple(read.gradients or ()), axis=-1)
        size = np.linalg.norm(parts.astype(float), axis=-1)
        back = read.lengths[:, None] - 1 - np.arange(size.shape[1])
        sums, counts = np.zeros(size.shape[1]), np.zeros(size.shape[1])
        np.add.at(sums, back[read.valid], np.square(size[read.valid]))
        np.add.at(counts, back[read.valid], 1)
        ends = int(read.lengths.max())
        curves[layer.name] = np.sqrt(sums[:ends] / np.maximum(counts[:ends], 1))
    if curves:
        yield Picture(
            "lines",
            "Gradient of the loss by lag",
            "steps before the end",
            "|dL / d state|",
            curves,
            log_y=True,
            note="What training hears of each step, root mean square over the rows.",
        )


def _layer(layer: LayerTrace, report: Report) -> Iterator[Picture]:
    """Yield the states and gates of one row, then the gates of all rows and the weights."""
    assert report.trace is not None
    row = longest(report.trace) if report.row is None else report.row
    length = int(layer.lengths[row]) if row < len(layer.lengths) else 0
    columns = report.events if len(report.events) == length else ()
    if length:
        for name, values in layer.states._asdict().items():
            yield _heat(f"State {name}", values[row, :length], columns, None)
        for name, values in layer.gates._asdict().items():
            bounds = layer.cell.gate_ranges.get(name)
            yield _heat(f"Gate {name}", values[row, :length], columns, bounds)
    yield from _histogram(layer)
    yield from _spectrum(layer)


def _heat(
    title: str, values: Floats, columns: tuple[str, ...], bounds: tuple[float, float] | None
) -> Picture:
    return Picture(
        "heat",
        title,
        "event" if columns else "step",
        "unit",
        {title: np.asarray(values, float).T},
        columns=columns,
        bounds=bounds,
    )


def _histogram(layer: LayerTrace) -> Iterator[Picture]:
    """Yield how often each gate had which value, over all rows, steps and units."""
    edges = np.linspace(0, 1, BINS + 1)
    shares = {}
    for name, values in layer.gates._asdict().items():
        if layer.cell.gate_ranges.get(name, (-1.0, 1.0))[0] == 0:
            counts, _ = np.histogram(values[layer.valid], edges)
            shares[name] = counts / max(counts.sum(), 1)
    if shares:
        yield Picture(
            "histogram",
            "How open the gates are",
            "value of the gate",
            "share of all units and steps",
            shares,
            x=edges,
            note="At 0 a gate is shut, at 1 it is open. One that is always the same decides "
            "nothing.",
        )


def _spectrum(layer: LayerTrace) -> Iterator[Picture]:
    """Yield singular values and eigenvalues of each gate's recurrent weights."""
    if "w_h" not in layer.params or not np.isfinite(layer.params["w_h"]).all():
        return
    blocks = {
        name: np.asarray(block(layer.cell, layer.params["w_h"], name), float)
        for name in layer.cell.blocks
    }
    yield Picture(
        "lines",
        "Singular values of the recurrent weights",
        "number, largest first",
        "singular value",
        {name: np.linalg.svd(w, compute_uv=False) for name, w in blocks.items()},
        note="The largest one bounds how much one step can amplify.",
    )
    square = {name: w for name, w in blocks.items() if w.shape[0] == w.shape[1]}
    if square:
        values = {name: np.linalg.eigvals(w) for name, w in square.items()}
        yield Picture(
            "scatter",
            "Eigenvalues of the recurrent weights",
            "real part",
            "imaginary part",
            {name: np.stack([each.real, each.imag], axis=1) for name, each in values.items()},
            circle=True,
            note="Inside the circle a direction fades over many steps, outside it grows, as far "
            "as the gates and the squashing let it.",
        )


def _is_finite(layer: LayerTrace) -> bool:
    arrays = (*layer.states, *layer.params.values())
    return all(bool(np.isfinite(each).all()) for each in arrays)
