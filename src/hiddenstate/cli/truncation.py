"""`hiddenstate truncation`: what is lost of the gradient when it goes back k steps only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from hiddenstate.train.truncation import Truncation


def truncation(
    run: s.Run,
    source: s.Source,
    lags: Annotated[
        str, typer.Option(metavar="K,K,...", help="Steps through which the gradient goes back.")
    ] = "1,2,5,10,20,50,100,200",
    stride: Annotated[
        int | None,
        typer.Option(
            help="Steps by which windows move on; the whole window when not given. With 1 every "
            "loss goes back exactly k steps.",
            min=1,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Longest sequence taken from a text.", min=2)] = 256,
    sequences: Annotated[int, typer.Option(help="Sequences taken.", min=1)] = 8,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Measure the gradient error of truncated backpropagation against the whole graph.

    For each k: the cosine between the two gradients and the relative error, of
    all weights and of the recurrent ones, on data of the model's kind (a text,
    or an event log).

    [bold]Example:[/bold]  hiddenstate truncation runs/shakespeare input.txt --lags 1,5,25,100
    """
    from hiddenstate.cli.output import note, print_json, table
    from hiddenstate.errors import UsageError
    from hiddenstate.job.truncation import measure

    try:
        wanted = [int(lag) for lag in lags.split(",")]
    except ValueError:
        raise UsageError(
            f"--lags {lags} is no list of whole numbers.",
            "Numbers of steps with commas between them were expected.",
            "Write for example --lags 1,2,5,10.",
        ) from None

    def told(found: Truncation) -> None:
        note(f"k = {found.steps}: relative error {_shown(found.relative_error)}", quiet)

    result = measure(
        run,
        source,
        wanted,
        stride=stride,
        steps=steps,
        sequences=sequences,
        remark=lambda remark: note(remark, quiet),
        observer=told,
    )
    if json:
        print_json(result)
        return
    names = ("cosine", "relative_error", "norm_ratio", "recurrent_cosine", "recurrent_error")
    rows = [
        [f"{each['steps']}", *(_shown(each[name]) for name in names)] for each in result["lags"]
    ]
    title = (
        f"gradient through k steps against the whole one: {result['sequences']} sequences, "
        f"{result['steps']:,} steps, the longest {result['longest_steps']}"
    )
    table(
        title,
        ["k", "cosine", "error |g_k - g| / |g|", "|g_k| / |g|", "cosine of W_h", "error of W_h"],
        rows,
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
