"""A trace on disk: one .npz of plain arrays, under the names of `Trace.axes`.

`about` holds the rest as JSON in UTF-8 bytes: cells, directions, remarks. Nothing is compressed, so
that no array can be larger than the file that it comes in.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact.files import write_atomically
from hiddenstate.cells import Cell, from_json
from hiddenstate.diagnose.tracing.record import LayerTrace, Trace
from hiddenstate.errors import ArtifactError, HiddenstateError

FORMAT, VERSION = "hiddenstate trace", 1
FLOATS = ("float32", "float64")


def write(trace: Trace, path: Path) -> None:
    """Write a trace, all or nothing."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "layers": [
            {
                "name": layer.name,
                "cell": layer.cell.to_json(),
                "reverse": layer.reverse,
                "kernel": layer.kernel,
                "difference": layer.difference,
                "gradients": layer.gradients is not None,
            }
            for layer in trace.layers
        ],
        "outputs": len(trace.outputs),
        "loss": trace.loss,
        "remarks": trace.remarks,
        "axes": dict(trace.axes),
    }
    arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for layer in trace.layers:
        arrays |= {f"{layer.name}/{name}": each for name, _, each in layer.arrays()}
    arrays |= {f"outputs/{k}": each for k, each in enumerate(trace.outputs)}
    if trace.lengths is not None:
        arrays["lengths"] = trace.lengths
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(path, content.getvalue())


def read(path: Path) -> Trace:
    """Read a trace and check every size in it; raises ArtifactError."""
    try:
        arrays = _arrays(path)
        about = json.loads(arrays["about"].tobytes())
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"it is {about['format']!r}, version {about['version']!r}")
        layers = tuple(_layer(each, arrays) for each in about["layers"])
        return Trace(
            layers,
            tuple(arrays[f"outputs/{k}"] for k in range(about["outputs"])),
            None if about["loss"] is None else float(about["loss"]),
            tuple(map(str, about["remarks"])),
            _lengths(arrays, "lengths") if "lengths" in arrays else None,
        )
    except FileNotFoundError:
        raise ArtifactError(
            f"There is no file {path}.", "A trace that was saved was expected.", "Check the path."
        ) from None
    # A damaged file fails wherever it is first missed: zipfile, NumPy, JSON, a key, a size.
    except Exception as problem:
        raise _damaged(path, problem) from None


def _damaged(path: Path, problem: Exception) -> ArtifactError:
    said = problem.wrong if isinstance(problem, HiddenstateError) else str(problem)
    return ArtifactError(
        f"{path} cannot be read as a trace ({type(problem).__name__}: {said}).",
        f"A .npz that Trace.save wrote, version {VERSION}, was expected.",
        "Save the trace again, or restore the file from a copy.",
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    # NumPy would leave a file open that it cannot read.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        for member in archive.zip.infolist() if archive.zip else ():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
        return {name: archive[name] for name in archive.files}


def _layer(about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> LayerTrace:
    name = str(about["name"])
    cell = from_json(about["cell"])
    own = {
        key.removeprefix(f"{name}/"): array
        for key, array in arrays.items()
        if key.startswith(f"{name}/")
    }
    batch, time = own["x"].shape[:2]
    lengths = _lengths(own, "lengths")
    expected = _shapes(cell, batch, time, gradients=bool(about["gradients"]))
    for key, shape in expected.items():
        if own[key].shape != shape or own[key].dtype not in FLOATS:
            raise ValueError(
                f"{name}/{key} is {own[key].dtype} {list(own[key].shape)}, not {list(shape)}"
            )
    if lengths.shape != (batch,) or (lengths < 0).any() or (lengths > time).any():
        raise ValueError(f"{name}/lengths do not fit {batch} rows of {time} steps")

    def state(kind: str) -> Any:
        return cell.State(*(own[f"{kind}/{each}"] for each in cell.State._fields))

    return LayerTrace(
        name,
        cell,
        {each: own[f"params/{each}"] for each in cell.shapes()},
        bool(about["reverse"]),
        str(about["kernel"]),
        own["x"],
        lengths,
        state("first"),
        state("states"),
        cell.Gates(*(own[f"gates/{each}"] for each in cell.Gates._fields)),
        own["projected"],
        state("gradients") if about["gradients"] else None,
        float(about["difference"]),
    )


def _shapes(cell: Cell, batch: int, time: int, *, gradients: bool) -> dict[str, tuple[int, ...]]:
    widths, height = cell.state_shapes(), cell.hidden_size
    kinds = ("states", "gradients") if gradients else ("states",)
    return {
        "x": (batch, time, cell.input_size),
        "projected": (batch, time, len(cell.blocks), height),
        **{f"params/{name}": shape for name, shape in cell.shapes().items()},
        **{f"first/{name}": (batch, width) for name, width in widths.items()},
        **{f"{k}/{name}": (batch, time, width) for k in kinds for name, width in widths.items()},
        **{f"gates/{name}": (batch, time, height) for name in cell.Gates._fields},
    }


def _lengths(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.int64]:
    found = arrays[name]
    if found.ndim != 1 or found.dtype != np.int64:
        raise ValueError(f"{name} is {found.dtype} {list(found.shape)}, not whole numbers [B]")
    return found
