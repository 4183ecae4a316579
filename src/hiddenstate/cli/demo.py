"""`hiddenstate demo`: the whole job on simulated tickets, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from hiddenstate.job.events.demo import Demo

LAST_STEPS = 8


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the files go.")
    ] = Path("demo"),
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the tickets and of the fit.")] = 0,
    epochs: s.Epochs = None,
    threads: s.Threads = None,
) -> None:
    """Simulate support tickets, fit a model, and follow three open tickets event by event.

    The simulator's exact probabilities are known, so the score stands between a floor (an n-gram)
    and a ceiling (the process itself).

    [bold]Example:[/bold]  hiddenstate demo --out demo
    """
    from hiddenstate.cli.output import print_json
    from hiddenstate.cli.progress import watch
    from hiddenstate.errors import UsageError
    from hiddenstate.job.events.demo import run

    if out.exists() and not overwrite and any(out.iterdir()):
        raise UsageError(
            f"--out {out} exists and is not empty.",
            "Nothing is overwritten unasked.",
            "Choose another folder, or add --overwrite.",
        )
    with watch(quiet=quiet) as observer:
        made = run(out, seed=seed, observer=observer, epochs=epochs, threads=threads)
    if json:
        scores = made.model.metrics["scores"]
        print_json({**scores, "files": {name: str(path) for name, path in made.files.items()}})
    else:
        show(made)


def show(made: Demo) -> None:
    """Print the scores, the three tickets and the files."""
    from rich.markup import escape

    from hiddenstate.cli.output import RESULTS, table
    from hiddenstate.cli.scores import show_scores

    show_scores(made.model.metrics["scores"], by_length=False)
    for case, steps in made.tickets.items():
        rows = [
            [f"{step.number}", escape(step.event), *(_expected(*each) for each in step.expected)]
            for step in steps[-LAST_STEPS:]
        ]
        title = f"Open ticket {case}: what comes next, after each of its last events"
        table(title, ["", "event", "most probable next", "second", "third"], rows)
    RESULTS.print("In brackets: the exact probability by the process that made the ticket.")
    for name, path in made.files.items():
        RESULTS.print(f"{name + ':':14}{path}", markup=False)


def _expected(action: str, model: float, exact: float) -> str:
    from rich.markup import escape

    return f"{escape(action)} {model:.0%} [dim]({exact:.0%})[/dim]"
