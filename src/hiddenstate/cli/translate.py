"""`hiddenstate translate`: targets for sources, line by line, and where the model looked."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated

import typer

from hiddenstate.cli import settings as s


def translate(
    run: s.Run,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="A source on each line; standard input when not given."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="For the targets; else they are printed."),
    ] = None,
    beam: Annotated[
        int | None, typer.Option(help="Hypotheses kept; 1 is greedy.", min=1, max=1000)
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Above 0, longer targets lose less.", min=0)
    ] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(
            "--alignment",
            metavar="FILE",
            help="Where the model looked for the first source: a heat map (.html, .svg) or .json.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="With --alignment: look at this target, not at the translation."),
    ] = None,
    head: Annotated[
        int | None,
        typer.Option(
            help="With --alignment: where this head of a transformer's last block looked, from 1; "
            "all of them otherwise.",
            min=1,
        ),
    ] = None,
    encoding: s.Encoding = None,
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Translate every line of a file, or of what is typed, by a model that fit to pairs made.

    An empty line stays one, so that line i of the output belongs to line i of the input.

    [bold]Example:[/bold]  echo "Ein Hund schläft." | hiddenstate translate runs/german
    """
    import sys

    from hiddenstate.artifact.files import write_atomically
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.errors import DataError, UsageError
    from hiddenstate.job.model import load
    from hiddenstate.job.pairs.heatmap import ENDINGS, heat_map, picture
    from hiddenstate.job.pairs.model import Fitted

    if alignment is not None and alignment.suffix not in ENDINGS:
        raise UsageError(
            f"--alignment {alignment} ends in {alignment.suffix!r}.",
            f"Where the model looked is written as {' or '.join(ENDINGS)}.",
            "Choose another name.",
        )
    for name, given in (("target", target), ("head", head)):
        if given is not None and alignment is None:
            raise UsageError(
                f"--{name} was given without --alignment.",
                "It says what is looked at; what is translated stands in the file.",
                f"Add --alignment FILE.html, or leave --{name} out.",
            )
    for path in (out, alignment):
        if path is not None and path.exists() and not overwrite:
            raise UsageError(
                f"{path} exists.",
                "Nothing is overwritten unasked.",
                "Choose another name, or add --overwrite.",
            )
    model = load(run)
    if not isinstance(model, Fitted):
        raise UsageError(
            f"{run} holds a model of {', '.join(model.artifact.spec.task_names)}.",
            "A translator was expected, fitted with --task translate.",
            "Give the folder of one; `hiddenstate predict` serves other models.",
        )
    if source is None:
        called, lines = "standard input", _typed(sys.stdin.buffer.read())
    else:
        from hiddenstate.data.pairs import read_lines

        called, lines = str(source), read_lines(source, encoding or "utf-8")
    if not any(line.strip() for line in lines):
        raise DataError(
            f"{called} holds no text.", "A source on each line was expected.", "Give at least one."
        )
    found = model.translate(lines, beam=beam, length_penalty=length_penalty)
    empty = sum(not line.strip() for line in lines)
    if empty:
        note(f"Empty lines: {empty}, each with an empty target.", quiet)
    strange = sum(sum(model.runtime.spec.source.unknowns(line).values()) for line in lines)
    if strange:
        note(f"Symbols that the model never saw and takes as unknown: {strange}.", quiet)
    if alignment is not None:
        first = next(line for line in lines if line.strip())
        looked = model.alignment(first, target, head)
        if alignment.suffix == ".json":
            text = jsons.dumps(looked.to_json(), ensure_ascii=False)
        else:
            text = (picture if alignment.suffix == ".svg" else heat_map)(looked)
        write_atomically(alignment, text.encode())
        note(f"Where the model looked is in {alignment}", quiet)
    if out is not None:
        write_atomically(out, "".join(f"{each.text}\n" for each in found).encode())
        note(f"{len(found)} targets are in {out}", quiet)
    if json:
        rows = [
            {"source": line, "target": each.text, "log_probability": each.log_probability}
            for line, each in zip(lines, found, strict=True)
        ]
        print_json({"translations": rows})
    elif out is None:
        sys.stdout.write("".join(f"{each.text}\n" for each in found))


def _typed(raw: bytes) -> list[str]:
    from hiddenstate.errors import DataError

    try:
        return raw.decode().splitlines()
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"Standard input is not UTF-8 (line {line}, byte {problem.start + 1}).",
            "Text is read as UTF-8 from there.",
            "Write it into a file and give its --encoding.",
        ) from None
