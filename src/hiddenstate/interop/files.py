"""Models of other systems in files: which ending is whose, reading, and writing what was proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from zipfile import BadZipFile, is_zipfile

import numpy as np

from hiddenstate.artifact import load, save
from hiddenstate.artifact.files import write_atomically
from hiddenstate.cells import Elman
from hiddenstate.errors import ArtifactError, SpecError, UsageError
from hiddenstate.interop.proof import Proof, prove
from hiddenstate.interop.weights import Array, Weights

TARGETS: Mapping[str, tuple[str, ...]] = {
    "": ("hiddenstate",),
    ".safetensors": ("torch",),
    ".pt": ("torch",),
    ".pth": ("torch",),
    ".keras": ("keras",),
    ".npz": ("flax", "haste"),
    ".onnx": ("onnx",),
}
"""Each file ending with the systems whose weights it can hold; without one it is a folder."""


class Outcome(NamedTuple):
    """What a system computed beside ours."""

    system: str
    proof: Proof
    notes: tuple[str, ...]


class Model(NamedTuple):
    """Recurrent layers that were read, and the proof that they were read right."""

    weights: Weights
    outcome: Outcome


def read(path: Path, *, part: str | None = None, activation: str = "tanh") -> Model:
    """Read the recurrent layers of a run folder or a file, and prove them.

    part:       which part of the model, by its name in the file; None = the only one
    activation: "tanh" or "relu", where a file holds arrays alone and they are of simple cells

    Nothing in a file is executed: no pickled objects, no Python code of a Keras model. Raises
    UsageError for another ending, ArtifactError for a damaged file, and what the systems raise.
    """
    if path.is_dir():
        from hiddenstate.interop.runs import from_run

        return _model("hiddenstate", from_run(path))
    if not path.exists():
        raise ArtifactError(
            f"{path} does not exist.",
            "A model to convert was expected there.",
            "Check the path.",
        )
    if path.suffix not in TARGETS or not path.suffix:
        raise UsageError(
            f"{path} has the ending {path.suffix or 'none'!r}.",
            f"A run folder is read, or a file ending in {', '.join(filter(None, TARGETS))}.",
            "Save the model in one of these formats.",
        )
    reader = {".keras": _read_keras, ".npz": _read_npz, ".onnx": _read_onnx}
    return reader.get(path.suffix, _read_torch)(path, part, activation)


def target_system(path: Path, asked: str | None) -> str:
    """Return the system of a file to be written; raises UsageError where it is not clear."""
    able = TARGETS.get(path.suffix, ())
    if asked in able:
        return asked
    if asked is None and len(able) == 1:
        return able[0]
    known = {system for systems in TARGETS.values() for system in systems}
    if asked is not None and asked not in known:
        raise UsageError(
            f"--to is {asked!r}.",
            f"It takes {', '.join(sorted(known))}.",
            "Choose one of them, or leave it out where the ending decides.",
        )
    raise UsageError(
        f"{path} has the ending {path.suffix or 'none'!r}"
        + (f", and --to is {asked}." if asked else "."),
        "; ".join(
            f"{suffix or 'a folder'} is for {' or '.join(found)}"
            for suffix, found in TARGETS.items()
        )
        + ".",
        "Give the file another ending." if not able or asked else "Say which with --to.",
    )


def serve(
    source: Path, folder: Path, *, part: str | None = None, activation: str = "tanh"
) -> dict[Path, Outcome]:
    """Write what a file holds as a model folder, which the runtime loads and streams through.

    An ONNX graph comes whole, with its embedding and its head; of other files, and of a graph where
    `part` names one of its nodes, the recurrent layers come, and the model gives their top states.

    Raises what `read` does, and SpecError where a graph is more than a model here; then nothing is
    written.
    """
    if source.suffix == ".onnx" and part is None:
        from hiddenstate.interop.onnx import read as read_onnx

        found = read_onnx(source)
        if found.artifact is None or found.proof is None:
            raise SpecError(
                f"{source} is more than a model here: {'; '.join(found.refusals)}.",
                "An embedding, recurrent layers and linear heads are served.",
                "Name one of its recurrent nodes as the part, and its layers alone are written: "
                f"{'; '.join(', '.join(stack.nodes) for stack in found.stacks)}.",
            )
        save(found.artifact, folder)
        return {source: Outcome("onnx", found.proof, found.notes)}
    from hiddenstate.interop.runs import to_run

    model = read(source, part=part, activation=activation)
    converted = to_run(model.weights)
    save(converted.value, folder)
    served = Outcome("hiddenstate.runtime", converted.proof, converted.notes)
    return {source: model.outcome, folder: served}


def export(run: Path, path: Path) -> Outcome:
    """Write a run folder's whole model, with its embeddings and heads, as an .onnx file."""
    from hiddenstate.interop.onnx import to_onnx

    exported = to_onnx(load(run))
    write_atomically(path, exported.content)
    return Outcome("onnx", exported.proof, exported.notes)


def write(weights: Weights, path: Path, system: str) -> Outcome:
    """Convert layers, write them and read them back; the file appears when all agree.

    Raises what the systems raise; then nothing is written.
    """
    if system == "onnx":
        from hiddenstate.interop.onnx import to_onnx

        exported = to_onnx(weights)
        write_atomically(path, exported.content)
        return Outcome(system, exported.proof, exported.notes)
    convert, save = _writer(system)
    converted = convert(weights)
    with TemporaryDirectory() as folder:
        kept = Path(folder) / path.name
        save(converted.value, kept)
        cells = [way.cell for way in weights.ways]
        activation = next((cell.activation for cell in cells if isinstance(cell, Elman)), "tanh")
        again = read(kept, activation=activation)

        def run(x: Array, lengths: Array | None, states: Any) -> tuple[Array, Any]:
            return again.weights.run(x, lengths, states)

        prove(weights, run, lengths=True, states=True, dtype=again.weights.dtype)
        write_atomically(path, kept.read_bytes())
    return Outcome(system, converted.proof, converted.notes)


def _writer(system: str) -> tuple[Callable[[Weights], Any], Callable[[Any, Path], None]]:
    if system == "torch":
        from hiddenstate.interop.torch import to_torch

        return to_torch, _save_torch
    if system == "keras":
        from hiddenstate.interop.keras import to_keras

        return to_keras, lambda model, path: model.save(path)
    if system == "flax":
        from hiddenstate.interop import flax

        return flax.to_flax, lambda model, path: _save_npz(flax.flatten(model.params), path)
    from hiddenstate.interop import haste

    return haste.to_haste, lambda layers, path: _save_npz(haste.flatten(layers), path)


def _save_npz(arrays: dict[str, Any], path: Path) -> None:
    np.savez(path, **arrays)


def _save_torch(module: Any, path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        import torch

        torch.save(state, path)


def _read_torch(path: Path, part: str | None, activation: str) -> Model:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch's reader stumbles over foreign bytes in any way
        raise ArtifactError(
            f"{path} holds other objects than tensors, or is damaged ({type(problem).__name__}).",
            "A state_dict of tensors was expected; pickled Python objects are never loaded.",
            "Save model.state_dict(), by torch.save or as safetensors.",
        ) from None
    tensors = _tensors(held, "")
    if any(name.rpartition(".")[2] == "recurrent_kernel" for name in tensors):
        from hiddenstate.interop.haste import from_haste

        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return _model("haste", from_haste(arrays, part=part))
    from hiddenstate.interop.torch import from_torch

    return _model("torch", from_torch(tensors, part=part, activation=activation))


def _tensors(held: Any, prefix: str) -> dict[str, Any]:
    """Return all tensors of a checkpoint by their dotted names, however it nests them."""
    import torch

    if not isinstance(held, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name, each in held.items():
        path = f"{prefix}{name}"
        found |= {path: each} if isinstance(each, torch.Tensor) else _tensors(each, f"{path}.")
    return found


def _read_keras(path: Path, part: str | None, _: str) -> Model:
    from hiddenstate.interop.keras import from_keras, load

    try:
        model = load(path)
    except Exception as problem:  # Keras raises whatever its layers do
        words = " ".join(str(problem).split())[:200] if is_zipfile(path) else "no zip archive"
        raise ArtifactError(
            f"{path} is no model that can be read ({words}).",
            "A file that Keras 3 saved was expected; code in it is never run (safe mode).",
            "Save it with model.save('model.keras'), without custom objects.",
        ) from None
    return _model("keras", from_keras(model, part=part))


def _read_npz(path: Path, part: str | None, activation: str) -> Model:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, BadZipFile) as problem:
        raise ArtifactError(
            f"{path} holds other objects than arrays, or is damaged ({type(problem).__name__}).",
            "An .npz of arrays was expected; pickled objects are never loaded.",
            "Write it with numpy.savez(path, **arrays).",
        ) from None
    if any(name.rpartition(".")[2] == "recurrent_kernel" for name in arrays):
        from hiddenstate.interop.haste import from_haste

        return _model("haste", from_haste(arrays, part=part))
    from hiddenstate.interop.flax import from_flax

    return _model("flax", from_flax(arrays, part=part, activation=activation))


def _read_onnx(path: Path, part: str | None, _: str) -> Model:
    from hiddenstate.interop.onnx import read as read_onnx

    found = read_onnx(path)
    stacks = found.stacks
    if part is not None:
        stacks = tuple(stack for stack in stacks if part in stack.nodes)
    if len(stacks) != 1:
        held = "; ".join(", ".join(stack.nodes) for stack in found.stacks)
        raise SpecError(
            f"{path} has recurrent stacks of the nodes {held}"
            + (f"; {part!r} is none of them." if part is not None else "."),
            "One stack of layers that read each other is converted at a time.",
            "Name one of its nodes as the part.",
        )
    return Model(stacks[0].weights, Outcome("onnx", stacks[0].proof, found.notes))


def _model(system: str, converted: Any) -> Model:
    return Model(converted.weights, Outcome(system, converted.proof, converted.notes))
