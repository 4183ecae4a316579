"""`hiddenstate tune`: search the settings of a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiddenstate.cli import settings as s


def tune(
    source: Annotated[
        str,
        typer.Argument(metavar="DATA", help="What `fit` reads.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the search.")
    ],
    trials: Annotated[int, typer.Option("--trials", min=1, help="Fits in all.")] = 20,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="A,B",
            help="What is searched: train.learning_rate, model.hidden_size, model.layers, "
            "train.batch_size, train.dropout (all of them).",
        ),
    ] = None,
    cells: Annotated[
        str | None, typer.Option("--cells", metavar="A,B", help="Cells to choose from.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", metavar="TASK", help="As in `fit`.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE.toml", help="Settings from a file.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of a recipe, not searched."),
    ] = None,
    epochs: s.Epochs = None,
    seed: s.Seed = None,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Search the settings of a fit by Optuna; the lowest validation loss wins.

    The test part is not looked at. The same command goes on after Ctrl-C.

    [bold]Example:[/bold]  hiddenstate tune tickets.csv --trials 30 --out runs/search
    """
    from hiddenstate.cli.output import note, print_json, table
    from hiddenstate.study.tune import tune as run
    from hiddenstate.train.recipe import parse_settings

    given: dict[str, Any] = {
        "tasks": [task] if task else [source] if source.startswith("problem:") else None,
        "train.epochs": epochs,
        **parse_settings(setting or []),
    }
    try:
        tuned = run(
            source,
            out,
            trials=trials,
            search=None if search is None else tuple(s.names(search) or ()),
            cells=tuple(s.names(cells) or ()),
            seed=seed or 0,
            recipe=recipe,
            observer=lambda remark: note(remark, quiet),
            **{name: value for name, value in given.items() if value is not None},
        )
    except KeyboardInterrupt:
        note("Stopped by Ctrl-C. What is done is kept: the same command goes on.", quiet)
        raise typer.Exit(1) from None
    if json:
        print_json({"loss": tuned.loss, "recipe": tuned.recipe.model_dump(mode="json")})
        return
    best = tuned.trials.drop("recipe").sort("loss", nulls_last=True).head(10)
    rows = [
        ["" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
        for row in best.iter_rows()
    ]
    table(f"best of {tuned.trials.height} trials", best.columns, rows)
    note(f"Fit with these settings: hiddenstate fit {source} --recipe {out / 'best.toml'}", quiet)
