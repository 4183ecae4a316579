"""Text as symbols: what is read comes back, and what is unknown is counted."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiddenstate.errors import DataError, SpecError, UsageError
from hiddenstate.schema import UNITS, Symbols
from hiddenstate.schema.bpe import PART_CHARACTERS, parts
from hiddenstate.schema.documents import BOUNDARY, TextCodes
from hiddenstate.schema.vocabulary import UNKNOWN

TEXT = "He said: \"Wait,  don't (yet)!\"\n\nNaïve — 3.5 % of the cat's twenty-one 😀s,\ttoo.\n" * 3
LOSSLESS = ("characters", "bytes", "bpe")


def fitted(unit: str, **options: object) -> Symbols:
    if unit == "bpe":
        options = {"size": 300, **options}
    return Symbols.fit([TEXT], unit, **options)


@pytest.mark.parametrize("unit", LOSSLESS)
def test_the_text_comes_back(unit: str) -> None:
    symbols = fitted(unit, specials=("<s>", BOUNDARY))
    codes = symbols.encode(TEXT)
    assert symbols.decode(codes) == TEXT
    assert codes.dtype == np.int32
    assert 2 < codes.min() <= codes.max() < len(symbols)


@pytest.mark.parametrize("unit", ["bytes", "bpe"])
@given(text=st.text())
@settings(max_examples=60, deadline=None)
def test_bytes_and_pairs_know_every_text(unit: str, text: str) -> None:
    symbols = SYMBOLS[unit]
    codes = symbols.encode(text)
    assert symbols.decode(codes) == text
    assert not symbols.unknowns(text)
    assert len(symbols.cut(text)) == len(codes)


SYMBOLS = {unit: fitted(unit) for unit in UNITS}


@given(text=st.text(st.characters(exclude_characters="\uffed", exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
def test_words_give_back_all_but_spaces(text: str) -> None:
    symbols = Symbols.fit([text + " x"], "words")

    def lines(of: str) -> list[list[str]]:
        return [line.split() for line in of.split("\n")]

    assert lines(symbols.decode(symbols.encode(text))) == lines(text)


@pytest.mark.parametrize("unit", UNITS)
def test_reading_code_by_code_is_reading_at_once(unit: str) -> None:
    symbols = SYMBOLS[unit]
    reader = symbols.reader()
    codes = symbols.encode(TEXT)
    assert "".join([*map(reader.read, codes.tolist()), reader.end()]) == symbols.decode(codes)


@pytest.mark.parametrize("unit", UNITS)
def test_symbols_go_through_json(unit: str) -> None:
    symbols = fitted(unit, lowercase=True, specials=("<s>",))
    again = Symbols.from_json(json.loads(json.dumps(symbols.to_json())))
    assert again == symbols
    assert again.encode(TEXT).tolist() == symbols.encode(TEXT).tolist()
    assert again.code_sizes == (len(symbols),)
    assert again.number_names == ()


def test_unknown_symbols_have_a_code_and_are_counted() -> None:
    symbols = Symbols.fit(["abba"])
    assert symbols.encode("axbyx").tolist() == [1, UNKNOWN, 2, UNKNOWN, UNKNOWN]
    assert symbols.unknowns("axbyx") == {"x": 2, "y": 1}
    assert symbols.decode([1, UNKNOWN, 2]) == "a\ufffdb"
    words = Symbols.fit(["a man, a plan"], "words", least_count=2)
    assert words.names == ("a",)
    assert words.unknowns("A man a fly") == {"A": 1, "man": 1, "fly": 1}


def test_lowercase_size_and_order() -> None:
    assert Symbols.fit(["Aab"], lowercase=True).encode("AB").tolist() == [1, 2]
    assert Symbols.fit(["cccbba"], size=2).names == ("b", "c")
    assert len(fitted("bpe", size=280)) == 281
    assert len(Symbols.fit(["a"], "bytes")) == 257


def test_specials_are_no_text() -> None:
    symbols = Symbols.fit(["<s> end"], "words", specials=("<s>", "end!"))
    codes = symbols.encode("<s> end!")
    assert not set(codes.tolist()) & {1, 2}
    assert symbols.code("<s>") == 1
    assert symbols.decode([1, *symbols.encode("end"), 2]) == "end"
    assert Symbols.fit(["a b"], "words", specials=("end",)).encode("a end").tolist() == [2, UNKNOWN]
    with pytest.raises(SpecError, match="twice"):
        Symbols.fit(["a b"], specials=("a",))


def test_half_a_character_is_shown_and_replaced() -> None:
    symbols = SYMBOLS["bytes"]
    codes = symbols.encode("aé")
    assert symbols.cut("aé") == ["a", "\\xc3", "\\xa9"]
    assert symbols.decode(codes[:2]) == "a\ufffd"


def test_a_long_text_is_encoded_in_parts_without_a_trace() -> None:
    # Nearly every place lies within a run of spaces, where a cut would be seen.
    line = "one" + " " * 60 + "\n\n another's\n"
    symbols = Symbols.fit([line * 20], "bpe", size=300)
    text = line * (PART_CHARACTERS // 50)
    assert len(list(parts(text))) > 1
    assert (symbols.encode(text) - 1).tolist() == symbols._tokenizer.encode(text).ids


@pytest.mark.parametrize("unit", UNITS)
def test_text_that_is_no_unicode_is_refused(unit: str) -> None:
    with pytest.raises(DataError, match="character 2"):
        SYMBOLS[unit].encode("a\udcff")


def test_wrong_requests_say_what_is_known() -> None:
    with pytest.raises(UsageError, match="Did you mean characters"):
        Symbols.fit(["a"], "character")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no words"):
        Symbols.fit(["  \t "], "words")
    with pytest.raises(UsageError, match="256"):
        Symbols.fit(["a"], "bpe", size=100)
    with pytest.raises(SpecError, match=r"schema\.names"):
        Symbols.from_json({**SYMBOLS["words"].to_json(), "names": 3})
    with pytest.raises(SpecError, match="BPE"):
        Symbols.from_json({**SYMBOLS["bpe"].to_json(), "merges": {}}).encode("a")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match="pip install"):
        Symbols.fit(["abc"], "bpe")


def test_documents_stand_between_boundaries() -> None:
    symbols = Symbols.fit(["abc"], specials=(BOUNDARY,))
    text = TextCodes.of(["ab", "c"], symbols, ends=True)
    assert text.codes.tolist() == [1, 2, 3, 1, 4, 1]
    assert text.codes[text.rows].tolist() == [1, 2, 3, 1, 4]
    assert text.codes[text.rows + 1].tolist() == [2, 3, 1, 4, 1]
    assert text.places.tolist() == [0, 1, 2, 0, 1]
    assert text.documents.tolist() == [0, 0, 0, 1, 1]
    cut = TextCodes.of(["ab", "c"], symbols, ends=False)
    assert cut.codes[cut.rows + 1].tolist() == [2, 3, 4]
    assert cut.steps == 3
