"""The section for problems with known answers, and what is usual there."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from hiddenstate.train.recipe.sections import Section

Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Problems(Section):
    """How many sequences of a problem with known answers are drawn, and how long they are."""

    sequences: Count = 3200
    """Sequences in an epoch, with lengths from the problem's own span."""
    fresh: bool = True
    """Draw new sequences in every epoch, from the seed; otherwise learn the same ones again."""
    grow: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training over which the greatest length grows from the span's least to its
    greatest, by the same factor in every epoch (a curriculum); 0 draws from the whole span."""
    validation_sequences: Count = 256
    """Sequences on which the best epoch is chosen."""
    test_sequences: Count = 500
    """Sequences of every length for the final score."""
    test_lengths: list[Annotated[int, Field(ge=0)]] | None = None
    """Lengths asked for in the final score; the span's least and greatest when not given."""


# What differs from the recipe's defaults for these tasks; a setting that is given goes first.
# Fresh data need no noise against learning by heart, and nothing is newer than anything else.
DEFAULTS: dict[str, Any] = {
    "model.embedding_size": 64,
    "train.epochs": 30,
    "train.patience": 1000,
    "train.finish_epochs": 0,
    "train.learning_rate": 3e-3,
    "train.weight_decay": 0.0,
    "train.batch_size": 64,
    "train.batch_events": 1_000_000,
    "train.dropout": 0.0,
    "train.input_dropout": 0.0,
    "train.recency": 0.0,
}
