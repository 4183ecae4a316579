"""`hiddenstate evaluate`: how good a model is on a file, beside its floors."""

from __future__ import annotations

from typing import Annotated

import typer

from hiddenstate.cli import settings as s


def evaluate(
    run: s.Run,
    source: s.Source,
    bootstrap: Annotated[
        int, typer.Option(help="Resamples of the cases behind each interval.", min=100)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Also score with the order of past events lost.")
    ] = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
    case: s.Case = None,
    activity: s.Activity = None,
    timestamp: s.Timestamp = None,
    time_format: s.TimeFormat = None,
    format_: s.Format = None,
    delimiter: s.Delimiter = None,
    encoding: s.Encoding = None,
    allow_bad_rows: s.AllowBadRows = None,
) -> None:
    """Score a model on finished cases, with intervals and next to its floors.

    The file is read with the columns and settings of the fit; the floors (most
    frequent, n-gram, median) come with the model.

    [bold]Example:[/bold]  hiddenstate evaluate runs/tickets held_back.csv
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.cli.scores import show_scores
    from hiddenstate.job.model import load

    model = load(run)
    result = model.evaluate(
        source,
        bootstrap=bootstrap,
        seed=seed,
        shuffle=shuffle,
        observer=lambda remark: note(remark, quiet),
        case=case,
        activity=activity,
        timestamp=timestamp,
        time_format=time_format,
        format=format_,
        delimiter=delimiter,
        encoding=encoding,
        allow_bad_rows=allow_bad_rows,
    )
    if json:
        print_json(result)
    else:
        show_scores(result)
