"""`hiddenstate convert`: recurrent weights from one system to another, run on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hiddenstate.interop.files import Outcome


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A run folder; a torch state_dict (.safetensors, .pt, .pth); a .keras file; an "
            ".onnx file; an .npz of haste's arrays, or of Flax parameters named with '/'.",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="TARGET",
            help="The file to write; its ending tells the system. A name without an ending is a "
            "folder for hiddenstate.runtime. Without TARGET, SOURCE is only checked.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="SYSTEM",
            help="torch, keras, flax, haste or onnx, where TARGET's ending leaves it open (.npz).",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="NAME",
            help="Which recurrent part of SOURCE: a prefix such as encoder.lstm, a layer's or a "
            "node's name.",
        ),
    ] = None,
    activation: Annotated[
        str,
        typer.Option(
            "--activation",
            metavar="NAME",
            help="tanh or relu, of a simple recurrent layer whose file holds arrays alone.",
        ),
    ] = "tanh",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TARGET.")] = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Convert recurrent layers to another system, and prove that both compute the same.

    Both models run on random and on edge inputs, and the largest differences are printed. What
    cannot be converted exactly is refused with the error that it would make, and nothing is
    written. A run folder becomes an .onnx file whole, with its embeddings and heads, and an .onnx
    file a folder that hiddenstate.runtime serves without torch.

    [bold]Example:[/bold]  hiddenstate convert model.keras model.safetensors
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.interop import files

    _require_activation(activation)
    system = None
    if target is not None:
        system = files.target_system(target, to)
        _refuse_existing(source, target, overwrite)
    found: dict[Path, Outcome] = {}
    layers = ""
    if system == "onnx" and target is not None and source.is_dir():
        found[target] = files.export(source, target)
    elif system == "hiddenstate" and target is not None:
        found |= files.serve(source, target, part=part, activation=activation)
    else:
        model = files.read(source, part=part, activation=activation)
        layers, found[source] = str(model.weights), model.outcome
        if target is not None and system is not None:
            found[target] = files.write(model.weights, target, system)
    if json:
        print_json(
            {
                "layers": layers.splitlines(),
                "models": [_to_json(path, outcome) for path, outcome in found.items()],
            }
        )
        return
    _show(layers, found, target)
    for told in dict.fromkeys(told for outcome in found.values() for told in outcome.notes):
        note(f"Note: {told}", quiet)


def _require_activation(activation: str) -> None:
    from hiddenstate.errors import UsageError

    if activation not in ("tanh", "relu"):
        raise UsageError(
            f"--activation is {activation!r}.", "It takes tanh or relu.", "Choose one of them."
        )


def _refuse_existing(source: Path, target: Path, overwrite: bool) -> None:
    from hiddenstate.errors import UsageError

    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(
            f"{target} is a folder." if target.is_dir() else f"{target.parent} is not a folder.",
            "TARGET is a new file or a new folder, in a folder that exists.",
            "Choose another path.",
        )
    same = target.exists() and source.exists() and target.samefile(source)
    if target.exists() and (same or not overwrite):
        raise UsageError(
            f"{target} is the source." if same else f"{target} exists.",
            "Nothing is overwritten unasked.",
            "Choose another name." if same else "Choose another name, or add --overwrite.",
        )


def _to_json(path: Path, outcome: Outcome) -> dict[str, object]:
    return {
        "path": str(path),
        "system": outcome.system,
        "proof": outcome.proof.to_json(),
        "notes": list(outcome.notes),
    }


def _show(layers: str, found: Mapping[Path, Outcome], target: Path | None) -> None:
    from rich.markup import escape

    from hiddenstate.cli.output import RESULTS, table
    from hiddenstate.interop.proof import COLUMNS

    if layers:
        RESULTS.print(layers, markup=False)
    for path, (system, proof, _) in found.items():
        title = f"{path} ({system}): largest differences from hiddenstate, {proof.dtype}"
        table(escape(title), COLUMNS, proof.rows())
    if target is not None:
        RESULTS.print(f"{target} is written: both compute the same.", markup=False)
