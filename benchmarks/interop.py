"""Write docs/results/interop.md: how far each system's own run is from ours.

python -m benchmarks.interop
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tests.laws.interop_cases import CELLS, FACES, SHAPES, weights

from benchmarks.kernels.machine import describe
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.conventions import SYSTEMS
from hiddenstate.interop.express import convention_of, express
from hiddenstate.interop.weights import Weights

RESULTS = Path("docs/results/interop.json")
PAGE = Path("docs/results/interop.md")
SIZES = (5, 16)
COLUMNS = [(shape, dtype) for shape in SHAPES for dtype in ("float32", "float64")]
BOTH, SINGLE = ("float32", "float64"), ("float32",)
RUNS: dict[str, tuple[str, str, tuple[str, ...], dict[str, str]]] = {
    "torch": ("torch", "torch", BOTH, {}),
    "keras": ("keras", "keras", SINGLE, {"KERAS_BACKEND": "torch"}),
    "keras on jax": ("keras", "jax", SINGLE, {"KERAS_BACKEND": "jax"}),
    "flax": ("flax", "flax", BOTH, {}),
    "nnx": ("nnx", "flax", BOTH, {}),
    "haste": ("haste", "numpy", BOTH, {}),
    "onnx": ("onnx", "onnxruntime", SINGLE, {}),
}
"""Each section: the system, the package that it needs, its types, and its process's environment."""

INTRODUCTION = """# Weights in other systems

Every cell in one layer, in both directions, and in two layers of both directions, with D = {d} and
H = {h} and weights drawn from U(-0.35, 0.35), is converted to every system, run there and here on
random inputs, a single step, saturating inputs, given first states and ragged lengths, and read
back. A number is the largest difference of an output or a last state from our reference in float64
over all of these; the weights that come back have to have the same bits. "refused" is followed by
the size of the error that the conversion would make; other words say that there is nothing to
convert to.

Written by `python -m benchmarks.interop`, {recorded}: {machine}. {versions}.
[The conventions](../conventions.md).
"""
NOTES = {
    "keras": "On torch and JAX, Keras multiplies in float32; weights in float64 are rounded.",
    "haste": "haste needs its own CUDA build: its published equations were run in its place.",
    "onnx": "Files hold float32. Cells without an operator of ONNX's own are written as a Scan.",
    "nnx": "The GRUCell of Flax nnx has no bias inside the reset product.",
}


def main() -> None:
    """Ask every system in a process of its own and write the page."""
    if len(sys.argv) > 1:
        system, *columns = sys.argv[1:]
        chosen = [column for column in COLUMNS if column[1] in columns]
        print(json.dumps({cell: dict(row(system, cell, chosen)) for cell in CELLS}))
        return
    kept: dict[str, Any] = {"recorded": f"{datetime.now(UTC):%Y-%m-%d}", "machine": describe()}
    kept["versions"] = {name: _version(name) for name in ("torch", "keras", "jax", "flax")}
    kept["versions"] |= {name: _version(name) for name in ("onnx", "onnxruntime")}
    kept["systems"] = {}
    for name, (system, needs, dtypes, variables) in RUNS.items():
        if not find_spec(needs):
            print(f"{name}: {needs} is not installed")
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.interop", system, *dtypes],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        kept["systems"][name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: done")
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


def row(system: str, cell: str, columns: list[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Yield what became of a cell, by column."""
    warnings.simplefilter("ignore")
    for shape, dtype in columns:
        given = weights(cell, shape, dtype, SIZES)
        try:
            proof = _onnx(given) if system == "onnx" else _other(system, given)
            allowed = min(case.tolerance for case in proof.cases)
            found = {"output": proof.output, "state": proof.state, "allowed": allowed}
        except ConversionRefusal as refusal:
            found = {"refused": refusal.measured_error}
        except SpecError as refusal:
            known = {"projects": "no such option", "backwards": "runs forwards only"}
            words = (told for word, told in known.items() if word in str(refusal))
            found = {"lacks": next(words, "no such layer")}
        yield f"{shape}, {dtype}", found


def _other(system: str, given: Weights) -> Any:
    face = FACES[system]
    module = face.load()
    converted = getattr(module, face.to)(given)
    activation = getattr(given.ways[0].cell, "activation", "tanh")
    back = face.back(module, converted.value, activation)
    _require_same(system, given, back.weights)
    return converted.proof


def _require_same(system: str, given: Weights, back: Weights) -> None:
    """What was read back is the cells that were written, bit by bit."""
    known = next(each for each in SYSTEMS if each.name == system)
    for way, found in zip(given.ways, back.ways, strict=True):
        for name, array in express(way, convention_of(known, way)).params.items():
            held = found.params[name]
            assert np.array_equal(array.astype(held.dtype), held), f"{system}: {way.cell}, {name}"


def _onnx(given: Weights) -> Any:
    from hiddenstate.interop.onnx import to_onnx

    return to_onnx(given).proof


def page(kept: dict[str, Any]) -> str:
    """Return the whole page."""
    machine = kept["machine"]
    told = f"{machine['processor']}, {machine['cores']} cores"
    versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items() if number)
    d, h = SIZES
    parts = [
        INTRODUCTION.format(d=d, h=h, recorded=kept["recorded"], machine=told, versions=versions)
    ]
    titles = {system.name: system.title for system in SYSTEMS} | {"keras on jax": "Keras on JAX"}
    titles["keras"] = "Keras on torch"
    for name, cells in kept["systems"].items():
        lines = [f"## {titles[name]}", "", *([NOTES[name], ""] if name in NOTES else [])]
        columns = list(next(iter(cells.values())))
        lines.append(f"| cell | {' | '.join(columns)} |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for cell, found in cells.items():
            lines.append(f"| {cell} | {' | '.join(map(_words, found.values()))} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _words(found: dict[str, Any]) -> str:
    if "output" in found:
        return f"{max(found['output'], found['state'] or 0.0):.0e}"
    return found.get("lacks") or f"refused, {found['refused']:.2g}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
