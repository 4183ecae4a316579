"""The text of docs/conventions.md, from the facts by which the converters read and write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.conventions import SYSTEMS, TABLE, Convention, System, find
from hiddenstate.interop.express import express
from hiddenstate.interop.files import TARGETS
from hiddenstate.interop.onnx import operators
from hiddenstate.interop.weights import Way

PAGE = Path(__file__).parent / "conventions.md"
TITLES = {"lstm": "LSTM", "gru": "GRU", "elman": "Simple recurrent layer (Elman)"}
INTRODUCTION = """# Conventions

Written by `python -m docs.generate` from the code; a test holds it to that. The converters of
`hiddenstate.interop` read and write by the same facts, and every conversion is proven: both models
run on random and on edge inputs (a single step, saturated gates, given first states, ragged
lengths), and what differs by more than rounding explains is refused with the size of the
difference. [The recorded differences](results/interop.md).

    hiddenstate convert model.keras model.safetensors

Letters are ours: gates `i f g o` of an LSTM, `r z n` of a GRU; weights `w_x` [gates x H, D] on the
input, `w_h` [gates x H, H] on the state, biases `b_x` and `b_h` beside them, `b_hn` the part of
`b_h` that belongs to `n`. A system's own letter stands in brackets."""
GRU_TEXT = """Two choices make the conventions of a GRU. The reset gate acts **after** the
recurrent product, `n = tanh(W_xn x + b_xn + r * (W_hn h + b_hn))`, or **before** it,
`n = tanh(W_xn x + W_hn (r * h) + b_n)`: these are different functions, and no conversion is exact
unless `W_hn` is diagonal and `b_hn` zero. The update gate **keeps** the old state,
`h = z * h + (1 - z) * n`, in every system here; where it **writes**, as in Chung et al. 2014, the
rows of `z` are negated, which is exact."""
FILES = """A `.npz` holds Flax parameters by their names joined with "/", or haste's by theirs.
Nothing in a file is executed: torch files are read with `weights_only=True`, Keras files in safe
mode, `.npz` without pickled objects. Flax nnx is converted in Python alone
(`hiddenstate.interop.nnx`). A run folder becomes an `.onnx` file with its embeddings and heads;
elsewhere its recurrent layers are converted."""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for cell, title in TITLES.items():
        parts += [f"## {title}", *([GRU_TEXT] if cell == "gru" else [])]
        parts.append("\n".join(_layers([row for row in TABLE if row.cell == cell])))
    parts += ["## Systems", "\n".join(_systems())]
    parts += ["## What becomes of a cell", "\n".join(_cells())]
    parts += ["## Files", "\n".join(_files()), FILES]
    return "\n\n".join(parts) + "\n"


def _layers(rows: list[Convention]) -> Iterator[str]:
    gru = rows[0].cell == "gru"
    heads = ["layer", "gates", "arrays", *(["reset"] if gru else []), "biases", "state", "remarks"]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        words = [
            f"[{row.name}]({row.system.source}{row.page})",
            " ".join(map(row.letter, row.blocks)),
            ", ".join(_arrays(row)),
            *([str(row.options["reset"])] if gru else []),
            _biases(row),
            ", ".join(row.state),
            row.remark,
        ]
        yield f"| {' | '.join(words)} |"


def _arrays(row: Convention) -> Iterator[str]:
    for name in dict.fromkeys(place.theirs for place in row.places):
        held = [place for place in row.places if place.theirs == name]
        ours = " then ".join(place.ours for place in held)
        words = f" of {', '.join(held[0].only)}" if held[0].only else ""
        yield f"`{name}` = {ours}{words}" + " as rows" * (held[0].join == "rows")


def _biases(row: Convention) -> str:
    return f"{row.biases}, or none" if row.system.biases_absent else str(row.biases)


def _systems() -> Iterator[str]:
    yield "| system | x | weights | where padding begins | both directions |"
    yield "|---|---|---|---|---|"
    for system in SYSTEMS:
        weights = "[inputs, rows]" if system.transposed else "[rows, inputs]"
        words = [system.title, system.layout, weights, system.lengths, system.both]
        yield f"| {' | '.join(words)} |"


def _cells() -> Iterator[str]:
    yield (
        "Exact is up to rounding: biases are added where only their sum counts, the rows of an "
        "update\ngate are negated, an LSTM without a forget gate of its own gets one that amounts "
        "to the same.\nWhat is refused says the size of the error that the conversion would make.\n"
    )
    yield "| cell | " + " | ".join(system.title for system in SYSTEMS) + " |"
    yield "|---" * (len(SYSTEMS) + 1) + "|"
    cells: list[Cell] = [
        Elman(3, 4),
        LSTM(3, 4),
        LSTM(3, 4, biases=2),
        LSTM(3, 4, projection=2),
        LSTM(3, 4, coupled=True),
        LSTM(3, 4, forget_gate=False),
        LSTM(3, 4, peephole=True),
        LSTM(3, 4, layer_norm=True),
        GRU(3, 4, biases=2),
        GRU(3, 4),
        GRU(3, 4, reset="before"),
        GRU(3, 4, biases=2, update="writes"),
    ]
    for cell in cells:
        biases = f"{cell.biases} bias" + "es" * (cell.biases > 1)
        words = [f"{TITLES[cell.name].split()[0]}, {cell.convention}, {biases}"]
        words += [_fate(cell, system) for system in SYSTEMS]
        yield f"| {' | '.join(words)} |"


def _fate(cell: Cell, system: System) -> str:
    row = find(system, cell)
    if row is None:
        return "no such layer"
    if system.name == "onnx":
        return "exact, as a Scan" if operators.refusals(cell) else "exact"
    drawn = cell.init(np.random.default_rng(0), "uniform")
    try:
        express(Way(cell, drawn), row)
    except ConversionRefusal:
        return "refused"
    except SpecError:
        return "no such option"
    return "exact"


def _files() -> Iterator[str]:
    yield "| ending | holds |"
    yield "|---|---|"
    for suffix, systems in TARGETS.items():
        yield f"| {f'`{suffix}`' if suffix else 'none: a folder'} | {' or '.join(systems)} |"
