"""Labelled sequences read from every kind of source, and what is wrong with them told."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars as pl
import pytest

from hiddenstate.data.labelled import Labelled
from hiddenstate.data.labelled_numbers import numbers
from hiddenstate.data.labelled_split import split_labelled
from hiddenstate.data.read_labelled import read_labelled
from hiddenstate.errors import HiddenstateError

TEXTS = [("good", "a fine day"), ("bad", "it, rained"), ("good", "sun again"), ("bad", "no")]
TOKENS = [[("Ann", "P"), ("ran", "O")], [("Bob", "P")], [("they", "O"), ("saw", "O"), ("Ann", "P")]]
SERIES = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]], [[7.0, 8.0], [9.0, 1.5], [2.5, 3.5]]]
OF_SERIES = ["x", "y", "x"]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(labels: str = "c") -> list[list[str]]:
    """The series in long form, the rows of the sequences interleaved and each backwards."""
    found = [
        [str(case), str(step), *map(str, frame), OF_SERIES[case] if labels == "c" else f"s{step}"]
        for case, frames in enumerate(SERIES)
        for step, frame in reversed(list(enumerate(frames)))
    ]
    return sorted(found, key=lambda row: (row[1], row[0]), reverse=True)


def long_series(labels: str = "c") -> str:
    return "\n".join([",".join(row) for row in [["id", "t", "a", "b", "label"], *rows(labels)]])


def ts(frames: list[Any] = SERIES, labels: list[str] = OF_SERIES) -> str:
    lines = [
        ":".join([*(",".join(map(str, channel)) for channel in zip(*each)), label])
        for each, label in zip(frames, labels)
    ]
    return "\n".join(["# remark", "@problemName p", "@classLabel true x y", "@data", *lines, ""])


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def padded() -> dict[str, Any]:
    x = np.full((3, 3, 2), np.nan)
    for place, frames in enumerate(SERIES):
        x[place, : len(frames)] = frames
    return {"x": x, "lengths": np.array([2, 1, 3]), "channels": np.array(["a", "b"])}


CSV = "label,text\n" + "\n".join(f'{label},"{text}"' for label, text in TEXTS)
LISTS = "\n".join(
    f'{{"tokens": {[t for t, _ in s]}, "labels": {[a for _, a in s]}}}'.replace("'", '"')
    for s in TOKENS
)
CONLL = "\n".join("".join(f"{t} x {a}\n" for t, a in s) for s in TOKENS)
LONG_TOKENS = "sentence_id,position,token,tag\n" + "\n".join(
    f"s{case},{step},{token},{tag}"
    for case, each in enumerate(TOKENS)
    for step, (token, tag) in enumerate(each)
)

TEXT_SOURCES: dict[str, Callable[[Path], Any]] = {
    "csv": lambda f: write(f, "a.csv", CSV),
    "tsv, named columns": lambda f: write(
        f, "a.tsv", "label\ttext\n" + "\n".join("\t".join(pair) for pair in TEXTS)
    ),
    "json lines": lambda f: write(f, "a.jsonl", pl.read_csv(io.StringIO(CSV)).write_ndjson()),
    "lines": lambda f: write(f, "a.txt", "\n".join(f"{a}\t{b}" for a, b in TEXTS) + "\r\n\n"),
    "polars": lambda _: pl.read_csv(io.StringIO(CSV)),
    "pandas": lambda _: pandas.read_csv(io.StringIO(CSV)),
}
TOKEN_SOURCES: dict[str, Callable[[Path], Any]] = {
    "conll": lambda f: write(f, "a.conll", "-DOCSTART- x O\n\n" + CONLL),
    "conll with tabs": lambda f: write(
        f, "a.conllu", "# text = Ann ran\n" + CONLL.replace(" ", "\t")
    ),
    "lists": lambda f: write(f, "a.jsonl", LISTS),
    "long csv": lambda f: write(f, "a.csv", LONG_TOKENS),
}
SERIES_SOURCES: dict[str, Callable[[Path], Any]] = {
    "long csv": lambda f: write(f, "a.csv", long_series()),
    "ts": lambda f: write(f, "a.ts", ts()),
    "npz": lambda f: write(f, "a.npz", npz(y=np.array(OF_SERIES), **padded())),
    "npz with offsets": lambda f: write(
        f,
        "a.npz",
        npz(
            x=np.concatenate(SERIES), offsets=np.array([0, 2, 3, 6]), y=np.array(OF_SERIES),
            channels=np.array(["a", "b"]),
        ),
    ),
}  # fmt: skip


def named(found: Labelled) -> list[str | None]:
    return found.labels.names().tolist()


@pytest.mark.parametrize("source", TEXT_SOURCES)
def test_texts_are_the_same_from_every_source(source: str, tmp_path: Path) -> None:
    found, _ = read_labelled(TEXT_SOURCES[source](tmp_path))
    assert found.texts is not None
    assert list(zip(named(found), found.texts)) == TEXTS
    assert found.lengths.tolist() == [len(text) for _, text in TEXTS]


@pytest.mark.parametrize("source", TOKEN_SOURCES)
def test_tokens_are_the_same_from_every_source(source: str, tmp_path: Path) -> None:
    found, _ = read_labelled(TOKEN_SOURCES[source](tmp_path), every_step=True)
    assert found.tokens is not None
    assert list(zip(found.tokens, named(found))) == [pair for each in TOKENS for pair in each]
    assert found.lengths.tolist() == [2, 1, 3]


@pytest.mark.parametrize("source", SERIES_SOURCES)
def test_series_are_the_same_from_every_source(source: str, tmp_path: Path) -> None:
    found, _ = read_labelled(SERIES_SOURCES[source](tmp_path))
    expected = {tuple(map(tuple, each)): label for each, label in zip(SERIES, OF_SERIES)}
    assert found.values is not None
    cuts = zip(found.offsets, found.offsets[1:])
    read = [tuple(map(tuple, found.values[start:end].tolist())) for start, end in cuts]
    assert dict(zip(read, named(found))) == expected


def test_labels_of_every_step_follow_the_order_of_the_positions(tmp_path: Path) -> None:
    found, _ = read_labelled(write(tmp_path, "a.csv", long_series("steps")), every_step=True)
    assert named(found) == [f"s{step}" for length in found.lengths for step in range(length)]
    assert found.channels == ("a", "b")


def test_a_folder_holds_a_file_or_a_folder_for_each_label(tmp_path: Path) -> None:
    write(tmp_path, "Greek.txt", "Pappas\nGalanos\n\n")
    write(tmp_path, "README.md", "read me")
    (tmp_path / "Irish").mkdir()
    write(tmp_path / "Irish", "one.txt", "Nolan\n")
    found, report = read_labelled(tmp_path, exclude=("README*",))
    assert found.texts is not None
    assert list(zip(found.texts, named(found))) == [
        ("Pappas", "Greek"), ("Galanos", "Greek"), ("Nolan", "Irish"),
    ]  # fmt: skip
    assert found.ids.tolist() == ["Greek 1", "Greek 2", "Irish 1"]
    blank = report.repair("blank")
    assert blank is not None
    assert blank.rows == (f"{tmp_path / 'Greek.txt'} row 3",)


def test_label_and_text_are_parted_as_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "a.train", b"NUM:date When is caf\xe9 ?\nLOC:city Where ?\n")
    found, _ = read_labelled(path, separator=" ", label_ends=":", encoding="latin-1")
    assert found.texts is not None
    assert list(zip(named(found), found.texts)) == [("NUM", "When is café ?"), ("LOC", "Where ?")]
    path = write(tmp_path, "b.txt", "so so|2\nyes|1\n")
    found, _ = read_labelled(path, separator="|", label_last=True)
    assert named(found) == ["2", "1"]


def test_repeated_sequences_are_told_and_dropped_if_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "a\tx\nb\tx\nb\tx\na\ty\nb\tz\nb\tz\n")
    found, report = read_labelled(path)
    kept, other = report.repair("repeated_kept"), report.repair("contradicting")
    assert kept is not None
    assert other is not None
    assert (found.cases, kept.count, other.count) == (6, 3, 2)
    assert kept.rows == ("row 2", "row 3", "row 6")
    found, report = read_labelled(path, drop_duplicates=True)
    assert found.texts is not None
    # Of x the label that it has most often stays.
    assert sorted(zip(found.texts, named(found))) == [("x", "b"), ("y", "a"), ("z", "b")]


def test_gaps_and_infinities_are_missing_and_told(tmp_path: Path) -> None:
    found, report = read_labelled(
        write(tmp_path, "a.ts", ts().replace("3.0", "?").replace("6.0", "inf"))
    )
    assert found.values is not None
    assert np.isnan(found.values).sum() == 2
    gaps, infinite = report.repair("gaps"), report.repair("infinite")
    assert gaps is not None
    assert infinite is not None
    assert (gaps.rows, infinite.rows) == (("row 5",), ("row 6",))


def test_a_sequence_without_a_label_stays_and_is_told(tmp_path: Path) -> None:
    found, report = read_labelled(write(tmp_path, "a.csv", CSV + "\n,lost\n"))
    repair = report.repair("no_label")
    assert named(found)[-1] is None
    assert repair is not None
    assert (repair.count, repair.rows) == (1, ("row 6",))


def test_without_answers_no_label_is_needed(tmp_path: Path) -> None:
    for name, content in {
        "a.csv": "id,text\n1,a\n2,b\n", "a.conll": "a\nb\n", "a.txt": "a\nb\n",
        "a.jsonl": '{"tokens": ["a"]}\n', "a.npz": npz(x=np.ones((2, 3))),
    }.items():  # fmt: skip
        step = name in ("a.conll", "a.jsonl")
        path = write(tmp_path, name, content)
        found, _ = read_labelled(path, every_step=step, answers=False)
        assert (found.labels.codes == -1).all()


Wrong = tuple[str, str | bytes, dict[str, Any], tuple[str, ...]]
WRONG: dict[str, Wrong] = {
    "wrong encoding": (
        "a.txt", b"a\tx\nb\tcaf\xe9\n", {}, ("not UTF-8", "row 2", "--encoding latin-1"),
    ),
    "empty file": ("a.csv", "", {}, ("empty", "a.csv")),
    "blank lines only": ("a.txt", "\n\n\n", {}, ("no sequence", "blank")),
    "header only": ("a.csv", "label,text\n", {}, ("no rows", "a.csv")),
    "no label column": ("a.csv", "text,b\nx,y\n", {}, ("label", "labels.label", "text, b")),
    "no text nor sequence column": ("a.csv", "p,label\nx,y\n", {}, ("labels.sequence",)),
    "a column that is not there": ("a.csv", CSV, {"text": "txt"}, ("txt", "text", "labels.text")),
    "lines without a label": ("a.txt", "a\nb\nc\td\n", {}, ("2 of 3", "labels.separator")),
    "two labels in a sequence": (
        "a.csv", "id,a,label\n1,2,x\n1,3,y\n", {}, ("'x'", "'y'", "--task label"),
    ),
    "no channel": ("a.csv", "id,label,a\n1,x,no\n", {}, ("channel", "labels.token")),
    "a channel that is not there": (
        "a.csv", long_series(), {"channels": ("a", "c")}, ("lacks 1", "c", "b"),
    ),
    "unequal lists": (
        "a.jsonl", '{"tokens": ["a", "b"], "labels": ["x"]}\n', {"every_step": True},
        ("row 1", "2 tokens", "1 labels"),
    ),
    "a line with one field": (
        "a.conll", "a x\nb\n", {"every_step": True}, ("row 2", "1 field"),
    ),
    "a field by name": (
        "a.conll", "a x\n", {"every_step": True, "token": "word"}, ("'word'", "labels.token=1"),
    ),
    "channels of unequal length": ("a.ts", "@classLabel true x\n@data\n1,2:3:x\n", {}, ("row 3",)),
    "a channel too few": (
        "a.ts", "@classLabel true x\n@data\n1:2:x\n1:x\n", {}, ("row 4", "1 channels"),
    ),
    "a word in a series": (
        "a.ts", "@classLabel true x\n@data\n1,b:x\n", {}, ("row 3", "channel 1", "'1,b'"),
    ),
    "a ts file without labels": ("a.ts", "@classLabel false\n@data\n1,2\n", {}, ("class labels",)),
    "other dimensions than told": (
        "a.ts", "@dimensions 3\n@classLabel true x\n@data\n1:2:x\n", {}, ("3 dimensions", "2"),
    ),
    "an archive without y": ("a.npz", npz(x=np.ones((2, 3))), {}, ("y", "x")),
    "labels for other sequences": (
        "a.npz", npz(x=np.ones((2, 3)), y=np.ones(3)), {}, ("[3]", "2 sequences"),
    ),
    "lengths beyond x": (
        "a.npz", npz(x=np.ones((2, 3)), y=np.ones(2), lengths=np.array([1, 9])), {}, ("9",),
    ),
    "no archive": ("a.npz", b"nothing", {}, ("archive", "numpy.savez")),
    "Python objects": (
        "a.npz", npz(x=np.array([{}, {}]), y=np.ones(2)), {}, ("Python objects",),
    ),
    "one label for steps": ("a.txt", "a\tb\n", {"every_step": True}, ("--task classify",)),
    "texts for steps": ("a.csv", CSV, {"every_step": True}, ("tokens", "--task classify")),
    "no such format": ("a.csv", CSV, {"format": "xes"}, ("xes", "csv")),
    "a kind of file unknown": ("a.xyz", CSV, {}, (".ts", "--format")),
    "a part that is none": (
        "a.csv", "label,text,p\nx,a,train\ny,b,late\n", {"part": "p"}, ("late", "--split-column"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_three_parts(case: str, tmp_path: Path) -> None:
    name, content, settings, words = WRONG[case]
    with pytest.raises(HiddenstateError) as caught:
        read_labelled(write(tmp_path, name, content), **settings)
    for word in words:
        assert word in str(caught.value)
    problem = caught.value
    assert all(len(part) > 10 for part in (problem.wrong, problem.expected, problem.remedy))


def test_a_folder_with_one_label_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "Greek.txt", "Pappas\n")
    with pytest.raises(HiddenstateError, match="1 label"):
        read_labelled(tmp_path)


def test_a_split_keeps_equal_inputs_together_and_labels_in_proportion() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in rng.integers(0, 300, 1000)]
    labels = rng.choice(["a", "b", "c"], size=1000, p=[0.7, 0.25, 0.05])
    frame = pl.DataFrame({"text": words, "label": labels})
    found, _ = read_labelled(frame)
    split = split_labelled(found, validation=0.1, test=0.3, seed=3)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert found.texts is not None
    seen = [set(found.texts[part]) for part in parts]
    assert len(set.union(*seen)) == sum(map(len, seen))
    again = split_labelled(found, validation=0.1, test=0.3, seed=3)
    other = split_labelled(found, validation=0.1, test=0.3, seed=4)
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, other.test)
    distinct = [f"u{number}" for number in range(1000)]
    found, _ = read_labelled(pl.DataFrame({"text": distinct, "label": labels}))
    test = split_labelled(found, validation=0.1, test=0.3).test
    share = np.bincount(found.labels.codes[test]) / np.bincount(found.labels.codes)
    assert np.allclose(share, 0.3, atol=0.02)


def test_numbers_are_read_from_every_source_and_a_missing_one_is_none(tmp_path: Path) -> None:
    values = [1.5, -2.0, float("nan")]
    shown = ["1.5", "-2", "NaN"]
    rows = [f"{c},{t},{t * 1.5},{x}" for c, x in enumerate(shown) for t in range(2)]
    series = "\n".join([f"{t},{t + 1}:{x}" for t, x in enumerate(shown)])
    sources: list[Any] = [
        write(tmp_path, "a.csv", "text,y\n" + "\n".join(f"word,{x}" for x in shown)),
        write(tmp_path, "a.txt", "\n".join(f"{x}\tword" for x in shown)),
        write(tmp_path, "long.csv", "\n".join(["id,t,a,y", *rows])),
        write(tmp_path, "a.ts", f"@targetLabel true\n@data\n{series}\n"),
        write(tmp_path, "a.npz", npz(x=np.zeros((3, 2, 1)), y=np.array(values))),
        pl.DataFrame({"text": ["a", "b", "c"], "y": values}),
        pandas.DataFrame({"text": ["a", "b", "c"], "y": values}),
    ]
    for source in sources:
        found, report = read_labelled(source, numeric=True)
        np.testing.assert_array_equal(numbers(found), values)
        assert (found.labels.codes < 0).tolist() == [False, False, True]
        told = report.repair("no_label")
        assert told is not None
        assert told.count == 1, source


def test_numbers_of_steps_and_what_is_none(tmp_path: Path) -> None:
    lines = ["id,t,a,y", "m,2,0.5,", "m,1,0.5,1e3", "n,1,2,NA", "n,2,3,?"]
    path = write(tmp_path, "a.csv", "\n".join(lines))
    found, _ = read_labelled(path, every_step=True, numeric=True)
    np.testing.assert_array_equal(numbers(found), [1000.0, np.nan, np.nan, np.nan])
    for word in ("hot", "inf", "1_000", "3,5"):
        path = write(tmp_path, "b.csv", "\n".join([*lines, f'n,3,4,"{word}"']))
        with pytest.raises(HiddenstateError, match=f"1 of 5 labels .*'{word}'"):
            read_labelled(path, every_step=True, numeric=True)
        assert read_labelled(path, every_step=True, numeric=True, answers=False)[0].cases == 2


def test_numbers_are_shared_out_in_exact_shares() -> None:
    texts = [f"text {place}" for place in range(100)]
    frame = pl.DataFrame({"text": texts, "y": np.arange(100) / 3})
    found, _ = read_labelled(frame, numeric=True)
    split = split_labelled(found, numeric=True)
    assert [len(split.train), len(split.validation), len(split.test)] == [70, 10, 20]
    assert "proportion" not in split.description
