"""The section for sequences with labels, and what is usual there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hiddenstate.train.recipe.sections import Section
from hiddenstate.train.recipe.series import Level


class Labels(Section):
    """How sequences with labels are read, for classify and label, and with numbers in the place of
    labels for regress and regress_steps.

    Beside it stand input.format, delimiter, encoding, exclude (columns, or files of a folder) and
    attributes (the columns that are channels).
    """

    text: str | None = None
    """Column with whole texts; found by its name when not given."""
    label: str | None = None
    """Column with the labels; found by its name when not given. In a file with a token and its
    label on each line, the number of the field, from 1 or (-1) from the end."""
    token: str | None = None
    """Column with one token a row; found by its name when not given. In a file with a token and its
    label on each line, the number of the field."""
    sequence: str | None = None
    """Column that says to which sequence a row belongs; found by its name when not given."""
    position: str | None = None
    """Column with a step's place or time in its sequence; found by its name when not given."""
    separator: Annotated[str, Field(min_length=1)] = "\t"
    """What parts label and text on a line (format lines)."""
    label_last: bool = False
    """The label stands behind the text on its line."""
    label_ends: str = ""
    """A label ends where this begins: with ":" the label of NUM:date is NUM."""
    drop_duplicates: bool = False
    """Keep one of several equal sequences, with the label that they have most often."""
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the random shares; the training seed does not change them."""
    unit: Literal["words", "characters", "bytes", "bpe"] | None = None
    """What one step of a text is; words where texts have four or more in the middle, characters
    else, when not given."""
    spelling: bool = True
    """Words are also read by their beginning, ending and capitals, characters by their kind."""
    pairs: bool = True
    """Words and characters are also read together with the one before them."""
    lowercase: bool = False
    """Read bytes, bpe and characters without pairs in small letters; else words and characters
    are, and capitals stand beside them."""
    least_count: Annotated[int, Field(ge=1)] = 1
    """Words or characters seen less often in training are unknown."""
    most_symbols: Annotated[int, Field(ge=1)] = 50_000
    """Words (or pairs, or symbols) kept at most, the most frequent ones."""
    output: Literal["quantiles", "gaussian", "point"] = "quantiles"
    """What is said of a number: quantiles, a normal distribution, or the number alone."""
    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = (0.1, 0.5, 0.9)
    """Levels of the quantiles; the outermost two make the interval that is shown."""


# What differs from the recipe's defaults for these tasks; a setting that is given goes first.
DEFAULTS: dict[str, Any] = {
    "model.bidirectional": True,
    "model.pool": "mean",
    "model.embedding_size": 64,
    "model.hidden_size": 96,
    "model.init": "orthogonal",
    "train.learning_rate": 4e-3,
    "train.dropout": 0.5,
    "train.input_dropout": 0.3,
    "train.recency": 0.0,
}
# Noise that turns a label round is rare; what it does to a number is not.
NUMBER_DEFAULTS: dict[str, Any] = {**DEFAULTS, "train.dropout": 0.2, "train.input_dropout": 0.0}
# A number at a step is wanted at that step, before those after it are there.
STEP_NUMBER_DEFAULTS: dict[str, Any] = {**NUMBER_DEFAULTS, "model.bidirectional": False}
