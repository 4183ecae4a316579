"""Text from files and tables, cut into documents and shared out without a leak."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from hiddenstate.data.text import Texts, read_texts, split_texts
from hiddenstate.errors import DataError, UsageError

LINES = "one\ntwo two\n\nthree\n"


def write(folder: Path, content: bytes, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("file", (LINES,)),
        ("lines", ("one", "two two", "three")),
        ("paragraphs", ("one\ntwo two", "three")),
    ],
)
def test_documents_are_files_lines_or_paragraphs(
    tmp_path: Path, documents: str, expected: tuple[str, ...]
) -> None:
    told: list[str] = []
    path = write(tmp_path, LINES.encode())
    texts = read_texts(path, documents=documents, tell=told.append)  # type: ignore[arg-type]
    assert texts.documents == expected
    assert texts.ends == (documents != "file")
    assert bool(told) == (documents == "lines")


def test_systems_and_compression_do_not_matter(tmp_path: Path) -> None:
    windows = write(tmp_path, b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode())
    packed = write(tmp_path, gzip.compress(LINES.encode()), "text.gz")
    wide = write(tmp_path, LINES.encode("utf-16"), "wide.txt")
    assert read_texts([windows, packed]).documents == (LINES, LINES)
    assert read_texts(wide, encoding="utf-16").documents == (LINES,)


def test_columns_of_tables_hold_documents(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3], "body": ["a b", None, "c"]})
    path = tmp_path / "table.parquet"
    frame.write_parquet(path)
    told: list[str] = []
    for source, column in ((frame, None), (frame.to_pandas(), "body"), (path, "body")):
        texts = read_texts(source, column=column, tell=told.append)
        assert texts.documents == ("a b", "c")
        assert texts.ends
    assert told == ["1 of 3 documents are empty and left out."] * 3
    with pytest.raises(DataError, match="no column 'text'"):
        read_texts(frame, column="text")
    with pytest.raises(DataError, match="2 columns of text"):
        read_texts(pd.DataFrame({"a": ["x"], "b": ["y"]}))
    with pytest.raises(DataError, match="does not exist"):
        read_texts(tmp_path / "no.csv", column="text")
    with pytest.raises(DataError, match="no table that is known"):
        read_texts(write(tmp_path, b"a"), column="text")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_texts(write(tmp_path, b"no parquet", "bad.parquet"), column="text")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"fine\nna\xefve\n", r"byte 0xef at offset 7 \(about row 2\)"),
        (b"\xff\xfea\x00", "byte order mark of utf-16"),
        (b"PK\x00\x00", "zero bytes"),
        (b"a" * 5000 + b"\n\x00", r"byte 5,002 is zero \(line 2\)"),
        (b"", "holds no text"),
        (b" \n\t\n", "holds no text"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_texts(write(tmp_path, content))


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        read_texts(tmp_path / "no.txt")
    with pytest.raises(DataError, match="cannot be opened"):
        read_texts(tmp_path)
    with pytest.raises(UsageError, match="no encoding"):
        read_texts(write(tmp_path, b"a"), encoding="utf-9")
    with pytest.raises(UsageError, match="cannot be read from list"):
        read_texts([])


def test_one_text_is_cut_by_position_and_nothing_is_lost() -> None:
    text = "".join(chr(97 + place % 26) for place in range(1003))
    parts = split_texts(Texts((text,), ends=False), validation=0.05, test=0.1)
    assert "".join(part.documents[0] for part in parts) == text
    assert [len(part.documents[0]) for part in parts] == [852, 50, 101]


def test_words_are_not_cut_in_two() -> None:
    text = "some words of a text " * 40
    parts = split_texts(Texts((text,), ends=False), validation=0.11, test=0.13, whole_words=True)
    assert "".join(part.documents[0] for part in parts) == text
    assert {word for part in parts for word in part.documents[0].split()} == set(text.split())


def test_documents_stay_whole() -> None:
    documents = tuple(f"document {number}" for number in range(10))
    train, valid, test = split_texts(Texts(documents, ends=True), validation=0.05, test=0.2)
    assert (*train.documents, *valid.documents, *test.documents) == documents
    assert (len(valid.documents), len(test.documents)) == (1, 2)
    assert test.ends


def test_parts_that_would_be_empty_are_refused() -> None:
    with pytest.raises(DataError, match="training: there is 2 documents"):
        split_texts(Texts(("a", "b"), ends=True), validation=0.1, test=0.1)
    with pytest.raises(DataError, match="one text of 5 characters"):
        split_texts(Texts(("abcde",), ends=False), validation=0.05, test=0.1)
    with pytest.raises(UsageError, match="shares"):
        split_texts(Texts(("a",), ends=False), validation=0.5, test=0.5)
