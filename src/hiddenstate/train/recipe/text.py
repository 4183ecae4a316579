"""The section for language models, and what is usual there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hiddenstate.train.recipe.sections import Section


class Text(Section):
    """How text becomes symbols, and how a language model reads it."""

    unit: Literal["characters", "bytes", "words", "bpe"] = "characters"
    """What one symbol is: a character, a byte of UTF-8, a word or mark, or a group of bytes that
    often stand together (byte-pair encoding)."""
    documents: Literal["file", "lines", "paragraphs"] = "file"
    """What is one document, within which the state is carried on: a whole file, a line, or the
    text between blank lines."""
    text_column: str | None = None
    """Column of a table (CSV, Parquet, JSON lines or a frame) in which each row is a document."""
    vocabulary: Annotated[int, Field(ge=2)] | None = None
    """Most symbols that are known. When not given: 20,000 words, 4,000 byte pairs, all
    characters."""
    least_count: Annotated[int, Field(ge=1)] | None = None
    """Symbols seen less often in training are unknown. When not given: 2 for words, so that the
    unknown word is learnt, and 1 elsewhere."""
    lowercase: bool = False
    """Read all text in small letters."""
    window: Annotated[int, Field(ge=1)] = 64
    """Steps k2 through which a gradient goes back; the state is carried on beyond."""
    stride: Annotated[int, Field(ge=1)] | None = None
    """Steps k1 by which windows move on, at most the window; the whole window when not given."""


# What differs from the recipe's defaults for these tasks; a setting that is given goes first.
DEFAULTS: dict[str, Any] = {
    "split.validation": 0.05,
    "split.test": 0.1,
    "model.hidden_size": 512,
    "model.embedding_size": 64,
    "model.init": "orthogonal",
    "train.finish_epochs": 2,
    "train.learning_rate": 4e-3,
    "train.dropout": 0.2,
    "train.input_dropout": 0.0,
    "train.recency": 0.0,
}
