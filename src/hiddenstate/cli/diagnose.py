"""`hiddenstate diagnose`: is a model healthy, and if not, where and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from hiddenstate.diagnose.report import Report

FOUND = 3
"""Exit code where something as bad as --fail-on, or worse, was found."""
NEVER = "never"
# Colours of the terminal, and bold or dim beside them for those who do not see them.
STYLES = {
    "good": "bold green",
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold blue",
    "quiet": "dim",
    "plain": "",
}
WIDEST = 100


def diagnose(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder that `fit` wrote.", show_default=False),
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Sequences to look at, as `fit` reads them; those of the fit when not given.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write the report with its pictures: one file that needs no network.",
        ),
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            "--fail-on",
            metavar="SEVERITY",
            help="Leave with exit code 3 where something so bad or worse was found: error, "
            "warning, note or never.",
        ),
    ] = "error",
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="CODES", help="Ask these rules alone: HS101,HS2."),
    ] = None,
    ignore: Annotated[
        str | None, typer.Option("--ignore", metavar="CODES", help="Do not ask these rules.")
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", help="Sequences to look at.", min=1)
    ] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of what the rules draw.")] = 0,
    rules: Annotated[
        bool, typer.Option("--rules", help="List the rules with what they ask, and leave.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is at --html.")
    ] = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
) -> None:
    """Ask a fitted model everything that is known to go wrong with memories.

    Says healthy or not, then what was found, worst first, with evidence and
    what to try. docs/rules.md defines every rule.

    Exit code 0: nothing as bad as --fail-on was found; 3: something was; 1 and
    2: it could not be asked (data or files; how the command was put together).

    [bold]Example:[/bold]  hiddenstate diagnose runs/tickets --html report.html
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.diagnose.finding import Severity
    from hiddenstate.errors import UsageError, nearest

    if rules:
        _list_rules(json)
        return
    if run is None:
        raise UsageError(
            "No run was given.",
            "A folder that `hiddenstate fit` wrote was expected.",
            "Write hiddenstate diagnose RUN, or --rules for the list of rules.",
        )
    severities = [*map(str, Severity), NEVER]
    if fail_on not in severities:
        raise UsageError(
            f"--fail-on {fail_on} is no severity.",
            f"It takes {', '.join(severities)}.",
            f"Choose one of them.{nearest(fail_on, severities)}",
        )
    if html is not None and html.exists() and not overwrite:
        raise UsageError(
            f"{html} exists.",
            "Nothing is overwritten unasked.",
            "Choose another name, or add --overwrite.",
        )
    from hiddenstate.job.diagnosis import diagnose as examined

    report = examined(
        run,
        source,
        rows=rows,
        only=s.names(only) or (),
        ignore=s.names(ignore) or (),
        seed=seed,
        observer=lambda remark: note(remark, quiet),
    )
    if json:
        print_json(report.to_json())
    else:
        _show(report)
    if html is not None:
        report.save_html(html)
        note(f"The report with its pictures is in {html}", quiet)
    worst = report.worst
    if fail_on != NEVER and worst is not None and worst.rank <= Severity(fail_on).rank:
        raise typer.Exit(FOUND)


def _show(report: Report) -> None:
    from rich.text import Text

    from hiddenstate.cli.output import RESULTS
    from hiddenstate.diagnose.report.words import lines

    for line in lines(report, min(RESULTS.width, WIDEST)):
        RESULTS.print(Text(line.text, STYLES[line.tone]))


def _list_rules(json: bool) -> None:
    from rich.text import Text

    from hiddenstate.cli.output import RESULTS, print_json
    from hiddenstate.diagnose import checks  # noqa: F401 - enters all rules
    from hiddenstate.diagnose.finding import CATALOGUE

    known = [CATALOGUE[code] for code in sorted(CATALOGUE)]
    if json:
        print_json({"rules": [rule.to_json() for rule in known]})
        return
    for rule in known:
        head = Text(f"{rule.code} {rule.name} ", "bold")
        RESULTS.print(head.append(str(rule.severity), STYLES[str(rule.severity)]))
        RESULTS.print(Text(f"  {rule.asks}"))
