"""The section for pairs of texts, and what is usual there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hiddenstate.train.recipe.sections import Fraction, Section


class Pairs(Section):
    """How pairs of texts become a translator, for translate."""

    target: str | None = None
    """File whose line i translates line i of the source file; when not given, each line of the
    source file holds both, parted by a tab."""
    validation_file: str | None = None
    """A file with the validation pairs (or sources), in place of a share of the first file."""
    validation_target: str | None = None
    """Targets of the validation file, where it holds sources alone."""
    test_target: str | None = None
    """Targets of split.test_file, where it holds sources alone."""
    keep_repeated: bool = False
    """Keep pairs that repeat another one, or stand in the validation or test part too."""
    unit: Literal["bpe", "words", "characters", "bytes"] = "bpe"
    """What one symbol of a text is."""
    size: Annotated[int, Field(ge=2, le=1_000_000)] = 5000
    """Symbols of each side, at most: the most frequent words, or the byte pairs."""
    least_count: Annotated[int, Field(ge=1)] = 2
    """Symbols seen less often are unknown."""
    lowercase: bool = False
    """Read and write small letters only."""
    context: Literal["first_state", "every_step", "additive", "dot", "general", "cross"] | None = (
        None
    )
    """What the decoder sees of the source: one vector (as its first_state, or at every_step too),
    or attention (additive, dot, general; cross for a transformer). When not given, general for a
    recurrent cell."""
    reverse_source: bool = False
    """Read the source from its end."""
    input_feeding: bool = False
    """Let the decoder read where attention has looked before."""
    coverage: bool = False
    """Let additive attention know how much it has looked where."""
    scheduled_sampling: Fraction = 0.0
    """Share of the decoder's inputs that are its own guesses at the end of training; it begins with
    none."""
    sampling_schedule: Literal["linear", "exponential", "sigmoid"] = "linear"
    """Course of that share over the training."""
    beam: Annotated[int, Field(ge=1, le=1000)] = 5
    """Hypotheses kept in translating; 1 is greedy."""
    length_penalty: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Above 0, longer translations are not at a disadvantage; 0 compares log probabilities."""


# What differs from the recipe's defaults for these tasks; a setting that is given goes first.
DEFAULTS: dict[str, Any] = {
    "split.test": 0.1,
    "model.hidden_size": 320,
    "model.embedding_size": 256,
    "model.bidirectional": True,
    "model.tied": True,
    "model.init": "orthogonal",
    "train.epochs": 12,
    "train.patience": 4,
    "train.finish_epochs": 0,
    "train.learning_rate": 3e-3,
    "train.batch_size": 64,
    "train.dropout": 0.3,
    "train.input_dropout": 0.3,
    "train.label_smoothing": 0.1,
    "train.recency": 0.0,
}
