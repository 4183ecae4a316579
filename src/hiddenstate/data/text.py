"""Text: read files or a column of a table, cut it into documents, share them out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import polars as pl

from hiddenstate.data.stream import check_utf8, utf8_chunks
from hiddenstate.data.tables import from_pandas
from hiddenstate.errors import DataError, UsageError

Documents: TypeAlias = Literal["file", "lines", "paragraphs"]

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_TABLES: dict[str, Callable[..., pl.DataFrame]] = {
    ".csv": pl.read_csv,
    ".tsv": lambda path: pl.read_csv(path, separator="\t"),
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
}


@dataclass(frozen=True)
class Texts:
    """Documents in their order.

    documents: each with at least one character
    ends:      whether a document's end is one: not where a single text was read or cut
    """

    documents: tuple[str, ...]
    ends: bool

    @property
    def characters(self) -> int:
        """Characters of all documents."""
        return sum(map(len, self.documents))


def read_texts(
    source: Any,
    *,
    documents: Documents = "file",
    encoding: str = "utf-8",
    column: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Texts:
    """Read documents from one text file or several, or from a column of a table.

    source:    a path, a list of them, or a polars or pandas frame; text may be compressed (.gz)
    documents: a whole file is one, or a line, or a paragraph (text between blank lines)
    column:    of a frame, or of a CSV, Parquet or JSON lines file; each row is a document

    Line ends of all systems are read as one; a byte order mark, and line ends around a document
    that is a line or paragraph, are no part of it. Empty documents are left out and told of. Raises
    DataError for a file that is no text in the encoding (with the place) and where nothing is left.
    """
    named = _from_table(source, column) if column is not None or _is_frame(source) else None
    if named is None:
        files = [source] if isinstance(source, str | Path) else list(source)
        if not files or not all(isinstance(file, str | Path) for file in files):
            raise UsageError(
                f"Text cannot be read from {type(source).__name__} {str(source)[:60]!r}.",
                "A path, a list of paths, or a polars or pandas frame was expected.",
                "Give one of them.",
            )
        named = [_from_file(Path(file), encoding) for file in files]
        if documents != "file":
            named = [part for text in named for part in _cut(text, documents)]
    kept = tuple(text for text in named if text.strip())
    if len(kept) < len(named):
        tell(f"{len(named) - len(kept)} of {len(named)} documents are empty and left out.")
    if not kept:
        raise DataError(
            f"{source if isinstance(source, str | Path) else 'The source'} holds no text but "
            "spaces and line ends.",
            "A language model needs text to learn from.",
            "Give a file with text in it.",
        )
    return Texts(kept, ends=len(kept) > 1 or column is not None or documents != "file")


def split_texts(
    texts: Texts, *, validation: float, test: float, whole_words: bool = False
) -> tuple[Texts, Texts, Texts]:
    """Share documents, or the characters of a single one, out to training, validation and test.

    The last share tests, the one before it validates, the rest trains; shares are of the documents,
    or of the single text's characters (whole_words moves a cut to the next space). No character
    stands in two parts. Raises UsageError for shares that do not fit, DataError where a part would
    be empty.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise UsageError(
            f"The shares are {validation} for validation and {test} for test.",
            "They must not be negative, and must leave text to train on (sum below 1).",
            "Choose others, such as 0.05 and 0.1.",
        )
    found: list[tuple[str, ...]]
    if len(texts.documents) == 1:
        text, of = texts.documents[0], f"one text of {texts.characters} characters"
        cuts = [int(len(text) * share + 1e-9) for share in (1 - test - validation, 1 - test)]
        if whole_words:
            cuts = [_next_space(text, cut) for cut in cuts]
        pieces = text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]
        found = [(piece,) if piece.strip() else () for piece in pieces]
    else:
        count, of = len(texts.documents), f"{len(texts.documents)} documents"
        tested, validated = (max(round(count * s), 1) if s else 0 for s in (test, validation))
        cut = max(count - tested - validated, 0)
        documents = texts.documents
        found = [documents[:cut], documents[cut : cut + validated], documents[cut + validated :]]
    asked = {"training": 1.0, "validation": validation, "test": test}
    empty = [name for part, (name, share) in zip(found, asked.items()) if share and not part]
    if empty:
        raise DataError(
            f"No text is left for {' and '.join(empty)}: there is {of}.",
            f"The shares are {validation} for validation and {test} for test.",
            "Give more text or other shares; the setting text.documents says whether a document is "
            "a file, a line or a paragraph.",
        )
    train, valid, last = (Texts(part, texts.ends) for part in found)
    return train, valid, last


def _from_file(path: Path, encoding: str) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return ""
    raw = b"".join(utf8_chunks(path, encoding))
    check_utf8(raw, path, 0, 1)
    if (place := raw.find(b"\0")) >= 0:
        raise DataError(
            f"{path} is no text: byte {place + 1:,} is zero (line {raw.count(10, 0, place) + 1}).",
            "A text file has no zero bytes.",
            "Give a text file; UTF-16 is read with --encoding utf-16.",
        )
    return raw.decode().replace("\r\n", "\n").replace("\r", "\n")


def _cut(text: str, documents: Documents) -> list[str]:
    if documents == "lines":
        lines = text.split("\n")
        return lines[:-1] if lines[-1] == "" else lines
    return [part.strip("\n") for part in _BLANK_LINES.split(text.strip("\n"))]


def _next_space(text: str, place: int) -> int:
    found = re.compile(r"\s").search(text, place)
    return found.start() if found else len(text)


def _is_frame(source: Any) -> bool:
    return not isinstance(source, str | Path) and hasattr(source, "columns")


def _from_table(source: Any, column: str | None) -> list[str]:
    if isinstance(source, str | Path):
        frame = _read_table(Path(source))
    else:
        frame = source.collect() if isinstance(source, pl.LazyFrame) else source
        frame = frame if isinstance(frame, pl.DataFrame) else from_pandas(frame)
    words = [name for name in frame.columns if frame[name].dtype == pl.String]
    chosen = column or (words[0] if len(words) == 1 else None)
    if chosen is None or chosen not in frame.columns:
        raise DataError(
            f"The table has no column {column!r}."
            if column
            else f"The table has {len(words)} columns of text.",
            f"Its columns are {', '.join(frame.columns)}.",
            "Name the one that holds the text: --set text.text_column=NAME.",
        )
    return [text or "" for text in frame[chosen].cast(pl.String).to_list()]


def _read_table(path: Path) -> pl.DataFrame:
    reader = _TABLES.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise DataError(
            f"{path} " + ("is no table that is known." if path.is_file() else "does not exist."),
            f"A column was named; tables end in {', '.join(_TABLES)}.",
            "Give such a file, or leave the column out.",
        )
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise DataError(
            f"{path} cannot be read as a table ({str(problem).splitlines()[0]}).",
            "Its ending says what it is.",
            "Look whether the file is whole and in UTF-8.",
        ) from None
