"""Reading pairs of texts: what is taken, what is dropped and told, what is refused and how."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from hiddenstate.data.pairs import Pairs, drop_repeated, drop_seen, read_pairs, split_pairs
from hiddenstate.errors import DataError, UsageError


def test_a_file_with_tabs_and_two_aligned_files_and_a_frame_say_the_same(tmp_path: Path) -> None:
    both = Pairs(("ein Hund", "zwei Äpfel", "ja"), ("a dog", "two apples", "yes"))
    lines = list(zip(both.sources, both.targets))
    tabbed, source, target = (tmp_path / name for name in ("pairs.tsv", "all.de.gz", "all.en"))
    tabbed.write_bytes("".join(f" {one}\t{two} \r\n" for one, two in lines).encode())
    source.write_bytes(gzip.compress("\n".join(both.sources).encode()))
    target.write_text("\n".join(both.targets) + "\n")
    assert read_pairs(tabbed) == both
    assert read_pairs(source, target) == both
    frame = pl.DataFrame({"de": both.sources, "en": both.targets})
    assert read_pairs(frame) == both == read_pairs(frame.to_pandas())


def test_files_of_unequal_length_are_refused_with_both_counts(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("one\ntwo\nthree\n")
    target.write_text("eins\nzwei\n")
    with pytest.raises(DataError, match=r"a has 3 lines, .*b has 2\.") as told:
        read_pairs(source, target)
    assert "Line 3 of" in told.value.remedy
    assert str(source) in told.value.remedy
    with pytest.raises(DataError) as told:
        read_pairs(target, source)
    assert f"Line 3 of {source}" in told.value.remedy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\teins\ntwo\n", r"line 2 has 1 column.*\(line 2\)"),
        ("one\teins\nx\ty\tz\nx\ty\tz\n", r"line 2 has 3 columns.*2 lines.*\(lines 2, 3\)"),
        ("one\teins\n\ndrei\n", "line 2 has 1 column"),
        ("one\teins\n \tzwei\n", r"1 line without text on a side \(line 2\)"),
        ("one\teins\ntwo\t\n", r"1 line without text on a side \(line 2\)"),
        ("a\tb\n" + "\tx\n" * 7, r"7 lines without text .*\(lines 2, 3, 4, 5, 6, \.\.\.\)"),
    ],
)
def test_lines_that_are_no_pair_are_refused_or_dropped(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(file)
    told: list[str] = []
    assert len(read_pairs(file, drop_bad=True, tell=told.append)) == 1
    assert "each no pair (line" in told[0]


def test_an_empty_line_in_one_of_two_files_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("one\n\nthree\n")
    target.write_text("eins\nzwei\ndrei\n")
    with pytest.raises(DataError, match=r"1 line without text on a side \(line 2\)"):
        read_pairs(source, target)
    assert read_pairs(source, target, drop_bad=True).targets == ("eins", "drei")


def test_another_encoding_is_refused_with_its_line_and_read_when_named(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes("one\teins\ntwo\tfünf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8.*about row 2"):
        read_pairs(file)
    assert read_pairs(file, encoding="latin-1").targets[1] == "fünf"


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_a_file_without_pairs_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_bytes(content)
    with pytest.raises(DataError):
        read_pairs(file, drop_bad=True)


def test_a_frame_of_other_columns_is_refused() -> None:
    for frame in (pl.DataFrame({"a": ["x"]}), pl.DataFrame({"a": ["x"], "b": [1]})):
        with pytest.raises(DataError, match="Two columns of text"):
            read_pairs(frame)


def test_repeated_pairs_and_those_of_a_held_back_part_go_and_are_told() -> None:
    told: list[str] = []
    pairs = Pairs(("a", "b", "a", "a"), ("1", "2", "1", "3"))
    single = drop_repeated(pairs, told.append)
    assert single == Pairs(("a", "b", "a"), ("1", "2", "3"))
    assert drop_seen(single, [Pairs(("b", "c"), ("2", "9"))], told.append).sources == ("a", "a")
    assert told == [
        "Dropped 1 pair: repetitions of an earlier one.",
        "Dropped 1 training pair: a held-back part has them too.",
    ]
    told.clear()
    assert drop_repeated(single, told.append) == single
    assert told == []


def test_parts_follow_the_place_and_cover_everything_once() -> None:
    pairs = Pairs(tuple(map(str, range(20))), tuple(map(str, range(20))))
    train, validation, test = split_pairs(pairs, validation=0.1, test=0.2)
    assert (*train.sources, *validation.sources, *test.sources) == pairs.sources
    assert [len(train), len(validation), len(test)] == [14, 2, 4]
    assert len(split_pairs(pairs, validation=0.0, test=0.1)[1]) == 0
    with pytest.raises(UsageError, match="sum below 1"):
        split_pairs(pairs, validation=0.5, test=0.5)
    with pytest.raises(DataError, match="There are 2 pairs"):
        split_pairs(pairs.select([0, 1]))
