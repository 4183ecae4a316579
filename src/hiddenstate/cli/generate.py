"""`hiddenstate generate`: let a language model write."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hiddenstate.cli import settings as s


def generate(
    run: s.Run,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="Text to go on from; none begins a document.")
    ] = "",
    length: Annotated[int, typer.Option("--length", "-n", help="Symbols, at most.", min=1)] = 500,
    temperature: Annotated[
        float,
        typer.Option(help="Below 1 bolder, above 1 wilder; 0 takes the most probable.", min=0),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the k most probable symbols.", min=1)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest that hold this probability.")
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(help="Search the most probable text with this width; draw nothing.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Write text with a language model, symbol by symbol as it is drawn.

    The prompt is printed before it. Symbols of the prompt that the model does
    not know are read as one unknown symbol, which is never written. Ctrl-C
    ends the text.

    [bold]Example:[/bold]  hiddenstate generate runs/shakespeare --prompt "ROMEO:" --temperature 0.8
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.job.text.model import language_model

    model = language_model(run)
    pieces = model.generate(
        prompt,
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        beam=beam,
        seed=seed,
        observer=lambda remark: note(remark, quiet),
    )
    if json:
        print_json({"prompt": prompt, "text": "".join(pieces), "seed": seed})
        return
    # The first symbol comes before the prompt is shown: a wrong setting prints nothing but words.
    first = next(pieces, "")
    try:
        sys.stdout.write(prompt + first)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        sys.stdout.flush()
        raise typer.Exit(130) from None
