"""`hiddenstate score`: how probable a text is, symbol by symbol."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiddenstate.cli import settings as s

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hiddenstate.job.text.model import Symbol

SHOWN_SYMBOLS = 40


def score(
    run: s.Run,
    source: s.Source,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help=".parquet, .csv or .jsonl; else a table."),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="A line of JSON for each symbol, and one with totals.")
    ] = False,
    overwrite: s.Overwrite = False,
    json: s.Json = False,
    quiet: s.Quiet = False,
    encoding: s.Encoding = None,
) -> None:
    """Give the log probability of a text under a language model, symbol by symbol.

    Each symbol is given all before it in its document. A symbol that the model
    does not know has no log probability; it is counted and left out of totals.

    [bold]Example:[/bold]  hiddenstate score runs/shakespeare sonnet.txt --out sonnet.parquet
    """
    from hiddenstate.cli.output import note, print_json
    from hiddenstate.job.tables import refuse_existing, write_table
    from hiddenstate.job.text.model import language_model
    from hiddenstate.job.text.totals import Totals

    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    model = language_model(run)
    totals = Totals()
    symbols: Iterator[Symbol] = totals.count(
        model.score(source, observer=lambda remark: note(remark, quiet), encoding=encoding)
    )
    if out is not None:
        write_table(_frame(symbols), out)
        note(f"{totals.symbols} symbols are in {out}", quiet)
    elif lines:
        for symbol in symbols:
            _line(symbol._asdict())
        _line({"totals": totals.to_json()})
        return
    if json:
        every = {} if out else {"each": [symbol._asdict() for symbol in symbols]}
        print_json({**every, "totals": totals.to_json(), "out": str(out) if out else None})
        return
    if out is None:
        _show(symbols, quiet)
    _show_totals(totals.to_json())


def _line(value: dict[str, Any]) -> None:
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def _frame(symbols: Iterable[Symbol]) -> Any:
    import polars

    schema = {
        "document": polars.Int64,
        "place": polars.Int64,
        "symbol": polars.String,
        "log_probability": polars.Float64,
        "rank": polars.Int64,
        "best": polars.String,
        "best_probability": polars.Float64,
    }
    return polars.DataFrame(list(symbols), schema=schema, orient="row")


def _show(symbols: Iterator[Symbol], quiet: bool) -> None:
    from rich.markup import escape

    from hiddenstate.cli.output import note, table

    rows = [
        [
            f"{each.document}",
            f"{each.place}",
            escape(repr(each.symbol)),
            "unknown" if each.log_probability is None else f"{each.log_probability:.3f}",
            "" if each.rank is None else f"{each.rank}",
            escape(repr(each.best)),
            f"{each.best_probability:.3f}",
        ]
        for each in islice(symbols, SHOWN_SYMBOLS)
    ]
    names = ["document", "place", "symbol", "log p (nats)", "rank", "most probable", "p"]
    table("", names, rows)
    left = sum(1 for _ in symbols)
    if left:
        note(f"{left} more: --out symbols.parquet or --lines gives all of them", quiet)


def _show_totals(totals: dict[str, Any]) -> None:
    from hiddenstate.cli.output import table

    words = {
        "documents": "documents",
        "symbols": "symbols",
        "unknown": "of them unknown",
        "log_probability": "log probability (nats)",
        "nats": "nats per symbol",
        "bits": "bits per symbol",
        "perplexity": "perplexity",
    }
    rows = []
    for name, said in words.items():
        value = totals[name]
        shown = "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        rows.append([said, shown])
    table("", ["", ""], rows)
