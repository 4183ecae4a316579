"""Texts that are none, or that a language model cannot be fitted to or asked about."""

from __future__ import annotations

from tests.journeys.wrong import QUICK, Wrong

TEXT = "She said that the cat was old, and he said so too.\n" * 30


def _fit(flags: str = "", file: str = "text.txt") -> str:
    return f"fit {file} --task lm --out out {QUICK} {flags}".strip()


def _of(content: str | bytes) -> dict[str, str | bytes]:
    return {"text.txt": content}


TEXTS = (
    Wrong("text that does not exist", _fit(), ("text.txt", "path")),
    Wrong("an empty text", _fit(), ("text.txt", "no text"), _of("")),
    Wrong("a text of spaces", _fit(), ("text.txt", "no text"), _of(" \n\n\t")),
    Wrong(
        "a text in another encoding",
        _fit(),
        ("text.txt", "UTF-8", "0xe9", "row 2", "--encoding"),
        _of(b"plain\ncaf\xe9 " + TEXT.encode()),
    ),
    Wrong(
        "a text with zero bytes",
        _fit(),
        ("text.txt", "zero", "line 31"),
        _of(TEXT.encode() + b" " * 4096 + b"\0"),
    ),
    Wrong("a text too short", _fit(), ("12 characters", "Give more text"), _of("hello world\n")),
    Wrong(
        "two documents for three parts",
        _fit("--set text.documents=lines"),
        ("2 documents", "training"),
        _of("one line\nand another\n"),
    ),
    Wrong(
        "a test file without text",
        _fit("--test-file held.txt"),
        ("held.txt", "no text"),
        {**_of(TEXT), "held.txt": "\n"},
    ),
    Wrong(
        "a column of a log for a text",
        _fit("--case speaker"),
        ("case", "lm", "Leave case out"),
        _of(TEXT),
        code=2,
    ),
    Wrong(
        "a split column for a text",
        _fit("--split-column part"),
        ("column", "lm"),
        _of(TEXT),
        code=2,
    ),
    Wrong(
        "a language model of both directions",
        _fit("--set model.bidirectional=true"),
        ("bidirectional", "nothing to predict"),
        _of(TEXT),
        code=2,
    ),
    Wrong(
        "a stride beyond the window",
        _fit("--set text.window=8 --set text.stride=9"),
        ("stride is 9", "window 8"),
        _of(TEXT),
        code=2,
    ),
    Wrong(
        "a unit nobody knows",
        _fit("--set text.unit=letters"),
        ("text.unit", "letters", "characters"),
        _of(TEXT),
        code=2,
    ),
    Wrong(
        "byte pairs fewer than bytes",
        _fit("--set text.unit=bpe --set text.vocabulary=100"),
        ("100", "256"),
        _of(TEXT),
        code=2,
    ),
    Wrong(
        "a column of a text file",
        _fit("--set text.text_column=body"),
        ("text.txt", "table"),
        _of(TEXT),
    ),
    Wrong(
        "two tasks of other kinds",
        _fit("--task next_event"),
        ("lm, next_event", "one model for each"),
        _of(TEXT),
        code=2,
    ),
    Wrong("text from a model of events", "generate run", ("next_event", "--task lm"), code=2),
    Wrong("a score from a model of events", "score run log.csv", ("next_event", "lm"), code=2),
    Wrong(
        "truncation at no number",
        "truncation run log.csv --lags few",
        ("--lags few", "1,2,5,10"),
        code=2,
    ),
    Wrong("truncation at zero", "truncation run log.csv --lags 0", ("0", "at least 1"), code=2),
)
