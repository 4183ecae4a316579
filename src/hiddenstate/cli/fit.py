"""`hiddenstate fit`: from a file to a model that knows what comes next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from hiddenstate.cli import settings as s


def fit(
    source: s.Source,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the model.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="Of event logs next_event (the default), remaining_time, time_to_next, "
            "occurs:ACTIVITY, outcome:column=COLUMN, several at once; or lm, classify, label, "
            "forecast, next_frame, translate.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE.toml", help="Settings from a file.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any setting of a recipe: train.clip_norm=0.5"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
    case: s.Case = None,
    activity: s.Activity = None,
    timestamp: s.Timestamp = None,
    no_timestamp: s.NoTimestamp = None,
    time_format: s.TimeFormat = None,
    format_: s.Format = None,
    delimiter: s.Delimiter = None,
    encoding: s.Encoding = None,
    attributes: s.Attributes = None,
    exclude: s.Exclude = None,
    allow_leaks: s.AllowLeaks = None,
    allow_bad_rows: s.AllowBadRows = None,
    validation: s.Validation = None,
    test: s.Test = None,
    test_file: s.TestFile = None,
    strict: s.Strict = None,
    split_column: s.SplitColumn = None,
    cell: s.Cell = None,
    hidden_size: s.HiddenSize = None,
    layers: s.Layers = None,
    bidirectional: s.Bidirectional = None,
    horizon: s.Horizon = None,
    epochs: s.Epochs = None,
    minutes: s.Minutes = None,
    patience: s.Patience = None,
    learning_rate: s.LearningRate = None,
    batch_size: s.BatchSize = None,
    dropout: s.Dropout = None,
    seed: s.Seed = None,
    threads: s.Threads = None,
    kernel: s.Kernel = None,
    tensorboard: s.TensorBoard = None,
    no_checks: s.NoChecks = False,
) -> None:
    """Fit a model and score it on a held-back part, beside its floors.

    FILE is a log of event histories, whose columns are found by their names or
    given; with another --task a text, sequences with labels, series or pairs;
    or problem:NAME, which is made on the spot. docs/tasks.md shows each.

    [bold]Example:[/bold]  hiddenstate fit tickets.csv --out runs/tickets
    [bold]Example:[/bold]  hiddenstate fit input.txt --task lm --out runs/text
    """
    settings: dict[str, Any] = {
        "tasks": task,
        "input.case": case,
        "input.activity": activity,
        "input.timestamp": timestamp,
        "input.no_timestamp": no_timestamp,
        "input.time_format": time_format,
        "input.format": format_,
        "input.delimiter": delimiter,
        "input.encoding": encoding,
        "input.attributes": s.names(attributes),
        "input.exclude": s.names(exclude),
        "input.allow_leaks": allow_leaks,
        "input.allow_bad_rows": allow_bad_rows,
        "split.validation": validation,
        "split.test": test,
        "split.test_file": test_file,
        "split.strict": strict,
        "split.column": split_column,
        "model.cell": cell,
        "model.hidden_size": hidden_size,
        "model.layers": layers,
        "model.bidirectional": bidirectional,
        "series.horizon": horizon,
        "train.epochs": epochs,
        "train.minutes": minutes,
        "train.patience": patience,
        "train.learning_rate": learning_rate,
        "train.batch_size": batch_size,
        "train.dropout": dropout,
        "train.seed": seed,
        "train.threads": threads,
        "train.kernel": kernel,
        "train.tensorboard": tensorboard,
    }
    from hiddenstate.cli.checks import checked
    from hiddenstate.cli.progress import watch
    from hiddenstate.cli.scores import show_fit
    from hiddenstate.job.fit import fit as run_fit
    from hiddenstate.train.recipe import parse_settings, read_recipe

    chosen = read_recipe(recipe, {**settings, **parse_settings(setting or [])})
    # Of several processes that torchrun has started, the first one speaks for all.
    leads = os.environ.get("RANK", "0") == "0"
    with (
        watch(quiet=quiet or not leads) as shown,
        checked(shown, chosen.train.clip_norm, off=no_checks or quiet or not leads) as observer,
    ):
        model = run_fit(
            source,
            out=out,
            recipe=chosen,
            overwrite=overwrite,
            resume=resume,
            observer=observer,
        )
    if leads:
        show_fit(model, out, json=json, quiet=quiet)
    if model.interrupted:
        raise typer.Exit(1)
