"""`hiddenstate rest`: how every open case goes on until its end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiddenstate.cli import settings as s


def rest(
    run: s.Run,
    source: s.Source,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help=".parquet, .csv or .jsonl; else a table."),
    ] = None,
    score: Annotated[
        bool,
        typer.Option("--score", help="Of finished cases: score the rest after each event."),
    ] = False,
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.", min=1, max=1000)] = 1,
    length_penalty: Annotated[
        float, typer.Option(help="With a beam: above 0, longer ones lose less.", min=0)
    ] = 1.0,
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
    case: s.Case = None,
    activity: s.Activity = None,
    timestamp: s.Timestamp = None,
    format_: s.Format = None,
    delimiter: s.Delimiter = None,
    encoding: s.Encoding = None,
    allow_bad_rows: s.AllowBadRows = None,
) -> None:
    """Say all activities that are still to come in every open case, by a next_event model.

    The model must have been fitted to activities alone (--attributes none
    --no-timestamp): of an event that has not happened, nothing else is known.

    [bold]Example:[/bold]  hiddenstate rest runs/tickets open_cases.csv
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.cli.scores import show_predictions, show_scores
    from hiddenstate.errors import UsageError
    from hiddenstate.job.events.model import Fitted
    from hiddenstate.job.model import load
    from hiddenstate.job.tables import refuse_existing, write_table

    if out is not None and score:
        raise UsageError(
            "--out and --score are given together.",
            "--score prints scores, and no table is made.",
            "Leave one of them out.",
        )
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    model = load(run)
    if not isinstance(model, Fitted):
        raise UsageError(
            f"{run} holds a model of {', '.join(model.artifact.spec.task_names)}.",
            "Cases go on in event logs.",
            "Give a run of --task next_event.",
        )
    settings: dict[str, Any] = {
        "beam": beam,
        "length_penalty": length_penalty,
        "observer": lambda remark: note(remark, quiet),
        "case": case,
        "activity": activity,
        "timestamp": timestamp,
        "format": format_,
        "delimiter": delimiter,
        "encoding": encoding,
        "allow_bad_rows": allow_bad_rows,
    }
    if score:
        result = model.evaluate_rest(source, **settings)
        if json:
            print_json(result)
        else:
            show_scores(result)
        return
    table = model.rest(source, **settings)
    if out is not None:
        write_table(table, out)
        note(f"The rest of {table.height} cases is in {out}", quiet)
    if json:
        print_json({"rows": table.height, "out": str(out)} if out else {"rest": table.to_dicts()})
    elif out is None:
        show_predictions(table)
