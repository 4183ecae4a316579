"""`hiddenstate data`: look at a log before fitting, or make one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from hiddenstate.data import Check

app = typer.Typer(no_args_is_help=True, help="Look at a log before fitting, or make one.")

SHOWN = 12


@app.command("check")
def check(
    source: s.Source,
    json: s.Json = False,
    quiet: s.Quiet = False,  # noqa: ARG001 - every command has it, and this one never remarks
    case: s.Case = None,
    activity: s.Activity = None,
    timestamp: s.Timestamp = None,
    no_timestamp: s.NoTimestamp = None,
    time_format: s.TimeFormat = None,
    format_: s.Format = None,
    delimiter: s.Delimiter = None,
    encoding: s.Encoding = None,
    exclude: s.Exclude = None,
    allow_bad_rows: s.AllowBadRows = None,
) -> None:
    """Say what is in a file and what is wrong with it.

    The exit code is 1 where something would spoil a model.

    [bold]Example:[/bold]  hiddenstate data check tickets.csv
    """
    from hiddenstate import data
    from hiddenstate.cli.output import print_json

    log, report = data.read(
        source,
        case=case,
        activity=activity,
        timestamp=timestamp,
        with_times=not no_timestamp,
        time_format=time_format,
        format=format_,
        delimiter=delimiter,
        encoding=encoding or "utf-8",
        exclude=s.names(exclude) or [],
        allow_bad_rows=bool(allow_bad_rows),
    )
    found = data.check(log, report)
    if json:
        print_json(
            {"columns": dict(report.columns), "details": dict(report.details), **found.to_json()}
        )
    else:
        _show(str(source), dict(report.columns), found)
    if any(finding.severity == "error" for finding in found.findings):
        raise typer.Exit(1)


def _show(source: str, columns: dict[str, str | None], found: Check) -> None:
    from rich.markup import escape

    from hiddenstate.cli.output import RESULTS, table

    total = sum(found.activities.values())
    rows = [[f"{role} column", escape(str(name))] for role, name in columns.items()]
    rows += [
        ["cases", f"{found.cases:,}"],
        ["events", f"{found.events:,}"],
        ["activities", f"{len(found.activities):,}"],
        [
            "events per case",
            f"{found.length_min} to {found.length_max}, median {found.length_median:g}",
        ],
    ]
    if found.first_event:
        rows.append(["time", f"{found.first_event} to {found.last_event}"])
    table(escape(source), ["", ""], rows)
    shown = list(found.activities.items())[:SHOWN]
    more = len(found.activities) - len(shown)
    rows = [[escape(name), f"{count:,}", f"{count / total:.1%}"] for name, count in shown]
    if more:
        rows.append([f"{more} more", "", ""])
    table("activities", ["", "events", "share"], rows)
    if found.attributes:
        rows = [
            [
                escape(a.name),
                a.kind,
                f"{a.missing:.1%}",
                "" if a.distinct is None else str(a.distinct),
            ]
            for a in found.attributes
        ]
        table("attributes", ["", "kind", "missing", "distinct"], rows)
    for finding in found.findings:
        RESULTS.print(
            f"{finding.severity} {finding.code}: {finding.where}: {finding.measured}", markup=False
        )
        RESULTS.print(f"  why: {finding.because}; what to do: {finding.remedy}", markup=False)
    if not found.findings:
        RESULTS.print("Nothing is wrong with this file.")


@app.command("simulate")
def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.csv", help="Where to write.")],
    tickets: Annotated[int, typer.Option(help="Number of tickets.", min=1)] = 4000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same log.")] = 0,
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Make a log of support tickets by a process whose exact probabilities are known.

    [bold]Example:[/bold]  hiddenstate data simulate --out tickets.csv --tickets 2000
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.errors import UsageError
    from hiddenstate.job.events.demo import write_log
    from hiddenstate.job.tables import refuse_existing
    from hiddenstate.tasks import simulator

    if out.suffix != ".csv":
        raise UsageError(
            f"--out {out} does not end in .csv.",
            "A simulated log is written as CSV.",
            f"Call it {out.with_suffix('.csv')}.",
        )
    refuse_existing(out, overwrite=overwrite)
    log = simulator.simulate(tickets, seed)
    write_log(log, out)
    note(f"{log.cases:,} tickets with {log.events:,} events are in {out}", quiet)
    if json:
        print_json({"tickets": log.cases, "events": log.events, "out": str(out)})
