"""`hiddenstate predict`: what comes next for every open case."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiddenstate.cli import settings as s


def predict(
    run: s.Run,
    source: s.Source,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help=".parquet, .csv or .jsonl; else a table."),
    ] = None,
    every_step: Annotated[
        bool, typer.Option("--every-step", help="A row for every event, not only the last one.")
    ] = False,
    overwrite: s.Overwrite = False,
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
    """Predict what comes next for every case in a file, from its events so far.

    Each row holds the case, its last event, the most probable answer with its
    probability, and the probability of every other answer.

    [bold]Example:[/bold]  hiddenstate predict runs/tickets open_cases.csv --out predictions.parquet
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.cli.scores import show_predictions
    from hiddenstate.job.model import load
    from hiddenstate.job.tables import refuse_existing, write_table

    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    model = load(run)
    table = model.predict(
        source,
        every_step=every_step,
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
    if out is not None:
        write_table(table, out)
        note(f"{table.height} predictions are in {out}", quiet)
    if json:
        print_json(
            {"rows": table.height, "out": str(out)} if out else {"predictions": table.to_dicts()}
        )
    elif out is None:
        show_predictions(table)
