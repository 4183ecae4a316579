"""Flags with their help, where several commands share them or a command has many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_READING, _SPLIT, _NETWORK, _TRAINING = "Reading", "Split", "Network", "Training"


def _flag(name: str, text: str, panel: str | None = None, metavar: str | None = None) -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel, metavar=metavar)


Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="CSV, Parquet, JSON lines or XES, also as .gz; or one trace a line.",
        show_default=False,
    ),
]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that `fit` wrote.", show_default=False)
]
Json = Annotated[bool, _flag("--json", "Print the result as one JSON object.")]
Quiet = Annotated[bool, _flag("--quiet", "No progress and no remarks.")]
Overwrite = Annotated[bool, _flag("--overwrite", "Replace what is at --out.")]
Seed = Annotated[int | None, _flag("--seed", "The same seed gives the same numbers.")]

Case = Annotated[str | None, _flag("--case", "Names the case.", _READING, "COLUMN")]
Activity = Annotated[str | None, _flag("--activity", "Names the event.", _READING, "COLUMN")]
Timestamp = Annotated[str | None, _flag("--timestamp", "Time of the event.", _READING, "COLUMN")]
NoTimestamp = Annotated[
    bool | None,
    typer.Option(
        "--no-timestamp", help="Read events in file order, without times.", rich_help_panel=_READING
    ),
]
TimeFormat = Annotated[
    str | None, _flag("--time-format", "As in strptime: '%d.%m.%Y %H:%M'.", _READING, "FORMAT")
]
Format = Annotated[str | None, _flag("--format", "csv, parquet, jsonl or xes.", _READING, "NAME")]
Delimiter = Annotated[str | None, _flag("--delimiter", "Of a CSV file.", _READING, "CHAR")]
Encoding = Annotated[str | None, _flag("--encoding", "Of a text file.", _READING, "NAME")]
AllowBadRows = Annotated[
    bool | None,
    typer.Option(
        "--allow-bad-rows", help="Go on with many unreadable rows.", rich_help_panel=_READING
    ),
]
Attributes = Annotated[
    str | None, _flag("--attributes", "Attribute columns to use, or 'none'.", _READING, "A,B")
]
Exclude = Annotated[str | None, _flag("--exclude", "Columns never to read.", _READING, "A,B")]
AllowLeaks = Annotated[
    bool | None,
    typer.Option(
        "--allow-leaks",
        help="Use columns that seem to give the answer away.",
        rich_help_panel=_READING,
    ),
]

Validation = Annotated[
    float | None, _flag("--validation", "Share of cases that decides when to stop.", _SPLIT)
]
Test = Annotated[float | None, _flag("--test", "Share of cases held back, the last ones.", _SPLIT)]
TestFile = Annotated[
    str | None, _flag("--test-file", "A file with the held-back cases.", _SPLIT, "FILE")
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict",
        help="Drop training events later than the first test case's start.",
        rich_help_panel=_SPLIT,
    ),
]
SplitColumn = Annotated[
    str | None, _flag("--split-column", "Holds train, validation or test.", _SPLIT, "COLUMN")
]

Cell = Annotated[str | None, _flag("--cell", "gru, lstm, elman or attention.", _NETWORK, "NAME")]
HiddenSize = Annotated[int | None, _flag("--hidden-size", "Width of the state.", _NETWORK)]
Bidirectional = Annotated[
    bool | None,
    typer.Option(
        "--bidirectional", help="Read sequences in both directions.", rich_help_panel=_NETWORK
    ),
]
Layers = Annotated[int | None, _flag("--layers", "Recurrent layers.", _NETWORK)]

Epochs = Annotated[int | None, _flag("--epochs", "Passes over the cases, at most.", _TRAINING)]
Horizon = Annotated[
    int | None, _flag("--horizon", "Steps ahead that are forecast, of series.", _TRAINING)
]
Minutes = Annotated[float | None, _flag("--minutes", "Training ends after them.", _TRAINING)]
Patience = Annotated[
    int | None, _flag("--patience", "Epochs without a better validation loss.", _TRAINING)
]
LearningRate = Annotated[float | None, _flag("--learning-rate", "Highest rate.", _TRAINING)]
BatchSize = Annotated[int | None, _flag("--batch-size", "Cases in a batch.", _TRAINING)]
Dropout = Annotated[float | None, _flag("--dropout", "Share of outputs dropped.", _TRAINING)]
Threads = Annotated[int | None, _flag("--threads", "Processor threads.", _TRAINING)]
Kernel = Annotated[str | None, _flag("--kernel", "Runs the recurrence.", _TRAINING, "NAME")]
TensorBoard = Annotated[
    bool | None,
    typer.Option("--tensorboard", help="Write scalars for TensorBoard.", rich_help_panel=_TRAINING),
]
NoChecks = Annotated[
    bool,
    typer.Option(
        "--no-checks",
        help="Do not look for signs of trouble while training.",
        rich_help_panel=_TRAINING,
    ),
]


def names(text: str | None) -> list[str] | None:
    """Read 'a,b' as a list of names and 'none' as no name."""
    if text is None:
        return None
    if text.strip().lower() == "none":
        return []
    return [name.strip() for name in text.split(",") if name.strip()]
