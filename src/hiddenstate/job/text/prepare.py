"""From text and a recipe to everything that training a language model needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hiddenstate.data.text import Texts, read_texts, split_texts
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.prepared import called
from hiddenstate.job.text.prepared import PreparedText
from hiddenstate.job.text.unknowns import unknowns_in_words
from hiddenstate.schema import Symbols
from hiddenstate.schema.documents import BOUNDARY, TextCodes
from hiddenstate.tasks.language import NAME, LanguageFloors
from hiddenstate.train import Recipe
from hiddenstate.train.recipe.sections import Input, Split

LEAST_SYMBOLS = 20
# What a recipe may say of reading and splitting a text.
READING, SPLITTING = ("encoding",), ("validation", "test", "test_file")

Remark = Callable[[str], None]


def prepare(source: Any, recipe: Recipe, tell: Remark) -> PreparedText:
    """Read, share out, find the symbols of the training part, count the floors."""
    _refuse(recipe)
    remarks: list[str] = []

    def remark(said: str) -> None:
        remarks.append(said)
        tell(said)

    parts, split = _read(source, recipe, remark)
    symbols = _symbols(parts[0], recipe)
    train, valid, test = (_encode(part, symbols) for part in parts)
    if train.steps < LEAST_SYMBOLS:
        raise DataError(
            f"The training part has {train.steps} symbols.",
            f"At least {LEAST_SYMBOLS} are needed.",
            "Give more text, or smaller shares for validation and test.",
        )
    for name, part in (("validation", parts[1]), ("test", parts[2])):
        _tell_unknowns(name, part, symbols, remark)
    both = _encode(_together(parts[0], parts[1]), symbols)
    floors = LanguageFloors.fit(train, valid, both, symbols.unit, len(symbols))
    return PreparedText(
        called(source),
        recipe,
        tuple(remarks),
        parts,
        (train, valid, test, both),
        symbols,
        floors,
        split,
    )


def _refuse(recipe: Recipe) -> None:
    for section, usual, known in (
        (recipe.input, Input(), READING),
        (recipe.split, Split(), SPLITTING),
    ):
        given = section.model_dump()
        for name, value in usual.model_dump().items():
            if name not in known and given[name] != value:
                raise UsageError(
                    f"{name} = {given[name]!r} was set, and the task is {NAME}.",
                    f"Text is read with {', '.join(READING)} and the section [text], and shared "
                    f"out with {', '.join(SPLITTING)}.",
                    f"Leave {name} out: it is for other kinds of data.",
                )
    if recipe.model.bidirectional:
        raise UsageError(
            f"model.bidirectional was set, and the task is {NAME}.",
            "A model that reads the symbols to come has nothing to predict.",
            "Leave it out.",
        )
    settings = recipe.text
    if settings.stride is not None and settings.stride > settings.window:
        raise UsageError(
            f"text.stride is {settings.stride} and text.window {settings.window}.",
            "Windows move on by at most their length, or steps between them would be lost.",
            "Choose a stride of at most the window.",
        )


def _read(source: Any, recipe: Recipe, tell: Remark) -> tuple[tuple[Texts, Texts, Texts], str]:
    settings, shares = recipe.text, recipe.split

    def read(of: Any) -> Texts:
        return read_texts(
            of,
            documents=settings.documents,
            encoding=recipe.input.encoding,
            column=settings.text_column,
            tell=tell,
        )

    texts = read(source)
    whole_words = settings.unit in ("words", "bpe")
    held_back = 0.0 if shares.test_file else shares.test
    parts = split_texts(
        texts, validation=shares.validation, test=held_back, whole_words=whole_words
    )
    if len(texts.documents) > 1:
        counts = [len(part.documents) for part in parts]
        split = "the first {} documents train, {} validate, {} test".format(*counts)
    else:
        counts = [part.characters for part in parts]
        split = "the first {:,} characters train, {:,} validate, {:,} test".format(*counts)
    if shares.test_file:
        parts = (*parts[:2], replace(read(shares.test_file), ends=texts.ends))
        split = f"{split.rpartition(',')[0]}; {shares.test_file} tests"
    return parts, split


def _symbols(training: Texts, recipe: Recipe) -> Symbols:
    settings = recipe.text
    least = settings.least_count or (2 if settings.unit == "words" else 1)
    return Symbols.fit(
        training.documents,
        settings.unit,
        size=settings.vocabulary,
        least_count=least,
        lowercase=settings.lowercase,
        specials=(BOUNDARY,),
    )


def _encode(texts: Texts, symbols: Symbols) -> TextCodes:
    return TextCodes.of(texts.documents, symbols, ends=texts.ends)


def _together(first: Texts, second: Texts) -> Texts:
    """Put validation behind training; of a single text, the two pieces are one again."""
    documents = (*first.documents, *second.documents)
    return (
        first
        if not second.documents
        else Texts(documents if first.ends else ("".join(documents),), first.ends)
    )


def _tell_unknowns(name: str, part: Texts, symbols: Symbols, tell: Remark) -> None:
    told = unknowns_in_words(part.documents, symbols)
    if told:
        tell(f"The {name} part has {told}")
