"""From a recipe's input section to the reader's options, for event logs and series."""

from __future__ import annotations

from hiddenstate.data import Options
from hiddenstate.train.recipe import Input


def options(recipe: Input) -> Options:
    """Return how a file is read, with all of its columns but the excluded ones.

    `attributes` are not left to the reader: what is no input may be an answer, or give one away.
    """
    return Options(
        case=recipe.case,
        activity=recipe.activity,
        timestamp=recipe.timestamp,
        with_times=not recipe.no_timestamp,
        exclude=recipe.exclude,
        format=recipe.format,
        delimiter=recipe.delimiter,
        encoding=recipe.encoding,
        time_format=recipe.time_format,
        allow_bad_rows=recipe.allow_bad_rows,
    )
