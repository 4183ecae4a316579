"""`hiddenstate compare`: which memory is better at equal cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from hiddenstate.study import Comparison


def compare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA_OR_TASK",
            help="Data as `fit` reads it, with --task, or a problem with a known answer: "
            "problem:adding, problem:parity:length=1-40.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.")
    ],
    cells: Annotated[
        str, typer.Option("--cells", metavar="A,B", help="Memories to compare.")
    ] = "elman,lstm,gru,attention",
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths",
            metavar="N,M",
            help="Lengths at which to score: 10,50,200,800 for a problem, all that data have.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Fits of each cell.")] = 5,
    equal: Annotated[
        str, typer.Option("--equal", metavar="WHAT", help="parameters, flops or time.")
    ] = "parameters",
    budget: Annotated[
        int | None,
        typer.Option("--budget", help="Parameters or flops; those of the first cell otherwise."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Of each fit, with --equal time.")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", help="Fits made at the same time.")] = 1,
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="TASK", help="As in `fit`.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting of a recipe, for every fit; for one cell: attention.model.layers=2.",
        ),
    ] = None,
    epochs: s.Epochs = None,
    layers: s.Layers = None,
    hidden_size: s.HiddenSize = None,
    learning_rate: s.LearningRate = None,
    batch_size: s.BatchSize = None,
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Compare memories on the same data at equal cost, over several seeds.

    Fits that are done are kept: the same command goes on after Ctrl-C. Scores
    stand beside floor and ceiling; page.html in the folder holds the curves.

    [bold]Example:[/bold]  hiddenstate compare problem:parity --cells gru,attention
    --lengths 40,400 --out runs/parity
    """
    from hiddenstate.cli.output import note
    from hiddenstate.study import compare as run
    from hiddenstate.train.recipe import parse_settings

    given: dict[str, Any] = {
        "tasks": [task] if task else None,
        "model.layers": layers,
        "model.hidden_size": hidden_size,
        "train.epochs": epochs,
        "train.learning_rate": learning_rate,
        "train.batch_size": batch_size,
        **parse_settings(setting or []),
    }
    try:
        comparison = run(
            source,
            out,
            cells=s.names(cells) or [],
            lengths=None if lengths is None else _numbers(lengths),
            seeds=seeds,
            equal=equal,
            budget=budget,
            minutes=minutes,
            processes=processes,
            overwrite=overwrite,
            observer=lambda remark: note(remark, quiet),
            **{name: value for name, value in given.items() if value is not None},
        )
    except KeyboardInterrupt:
        note("Stopped by Ctrl-C. What is done is kept: the same command goes on.", quiet)
        raise typer.Exit(1) from None
    _show(comparison, out, json=json, quiet=quiet)


def _numbers(text: str) -> list[int]:
    from hiddenstate.errors import UsageError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"--lengths {text} is no list of lengths.",
            "Whole numbers apart by commas were expected.",
            "Write for example --lengths 10,50,200.",
        ) from None


def _show(comparison: Comparison, out: Path, *, json: bool, quiet: bool) -> None:
    from hiddenstate.cli.output import RESULTS, note, print_json, table
    from hiddenstate.study import page

    scores, differences = comparison.scores(), comparison.differences()
    if json:
        print_json(
            {
                "folder": str(out),
                "scores": scores.to_dicts(),
                "costs": [_finite(row) for row in comparison.costs().to_dicts()],
                "differences": differences.to_dicts(),
                "failed": dict(comparison.failed),
            }
        )
        return
    tables = page.tables(comparison)
    for title, rows in tables.items():
        table(title, rows[0], rows[1:])
    for said in (page.TEST, page.ORDER):
        RESULTS.print(said, markup=False)
    for key, why in comparison.failed.items():
        note(f"{key}: {why}", quiet)
    note(f"Curves: {out / 'page.html'}; rows: {out / 'results.parquet'}", quiet)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}
