"""Floors of translation, their scores, and what a recipe makes of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from hiddenstate.artifact import LayerSpec, TransformerSpec
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.fit import fit
from hiddenstate.job.pairs import scores as scoring
from hiddenstate.job.pairs.feed import PairFeed
from hiddenstate.job.pairs.prepare import prepare, spec_of
from hiddenstate.job.pairs.scores import score_translations
from hiddenstate.models.translator import Translator
from hiddenstate.schema import Symbols
from hiddenstate.tasks.pair_floors import PairFloors
from hiddenstate.train import read_recipe

DIGITS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")


def counted(count: int = 400, seed: int = 0) -> list[tuple[str, str]]:
    """Numbers as digits and in words, without repetition."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        digits = rng.integers(0, 10, rng.integers(2, 6))
        found[" ".join(map(str, digits))] = " ".join(DIGITS[digit] for digit in digits)
    return list(found.items())


def written(folder: Path, rows: list[tuple[str, str]], name: str = "pairs.tsv") -> Path:
    file = folder / name
    file.write_text("".join(f"{one}\t{other}\n" for one, other in rows))
    return file


def test_the_nearest_source_and_the_dictionary_know_what_they_have_seen() -> None:
    sources = ("der rote Hund.", "die blaue Katze.", "der blaue Hund!", "eine Maus")
    targets = ("the red dog.", "the blue cat.", "the blue dog!", "a mouse")
    floors = PairFloors.fit(sources, targets)
    found = floors.translate([*sources, "rote Katze", "xyz", "der neue Hund."])
    assert found["nearest_source"][:4] == list(targets)
    assert found["nearest_source"][5] == targets[0]
    assert found["word_by_word"][1].endswith("blue cat.")
    assert found["word_by_word"][4] == "red cat"
    assert found["word_by_word"][5] == "xyz"
    assert "4 training pairs" in floors.description
    again = PairFloors.from_json(json.loads(json.dumps(floors.to_json())), floors.to_arrays())
    assert again.translate(["rote Katze!"]) == floors.translate(["rote Katze!"])
    assert again.description == floors.description


def test_nearest_is_the_cosine_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 30, rng.integers(3, 12))) for _ in range(80)]
    floors = PairFloors.fit(texts[:60], [str(k) for k in range(60)])
    oracle = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    known = oracle.fit_transform(texts[:60])
    alike = (oracle.transform(texts[60:]) @ known.T).toarray()
    for row, found in zip(alike, floors.translate(texts[60:])["nearest_source"], strict=True):
        assert row[int(found)] == pytest.approx(row.max())


def test_many_pairs_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiddenstate.tasks.pair_floors.MOST_PAIRS", 3)
    floors = PairFloors.fit([f"s{k}" for k in range(9)], [f"t{k}" for k in range(9)])
    assert floors.targets == ("t0", "t4", "t8")
    assert "3 of 9 training pairs" in floors.description


def test_scores_are_those_of_sacrebleu() -> None:
    rng = np.random.default_rng(1)
    references = [
        " ".join(DIGITS[k] for k in rng.integers(0, 10, rng.integers(2, 25))) for _ in range(60)
    ]
    said = [text.replace("drei", "vier").replace("acht ", "") for text in references]
    floor = ["eins zwei"] * 60
    result = score_translations(
        references, references, said, {"nearest_source": floor}, "a floor", bootstrap=200, seed=0
    )
    model = result["model"]["metrics"]
    for metric, oracle in (("bleu", BLEU()), ("chrf", CHRF())):
        expected = oracle.corpus_score(said, [references])
        assert model[metric]["value"] == pytest.approx(expected.score)
        assert result["signatures"][metric] == str(oracle.get_signature())
        assert model[metric]["low"] < model[metric]["value"] < model[metric]["high"]
        assert result["verdicts"]["nearest_source"][metric]["verdict"] == "better"
        worst = oracle.corpus_score(floor, [references]).score
        assert result["floors"]["nearest_source"]["metrics"][metric]["value"] == pytest.approx(
            worst
        )
    lengths = np.array([len(text.split()) for text in references])
    for bucket in result["model"]["by_length"]:
        inside = (lengths >= bucket["from"]) & (lengths <= (bucket["to"] or 99))
        assert bucket["events"] == inside.sum()
        chosen = np.flatnonzero(inside)
        expected = BLEU().corpus_score([said[k] for k in chosen], [[references[k] for k in chosen]])
        assert bucket["metrics"]["bleu"]["value"] == pytest.approx(expected.score)
    assert sum(bucket["events"] for bucket in result["model"]["by_length"]) == 60


def test_the_same_translations_tie_and_few_pairs_give_no_verdict() -> None:
    texts = ["eins zwei drei vier"] * 20
    for count, words in ((20, "could be chance"), (5, "too few pairs")):
        some = texts[:count]
        result = score_translations(
            some, some, some, {"word_by_word": some}, "", bootstrap=100, seed=0
        )
        verdict = result["verdicts"]["word_by_word"]["bleu"]
        assert verdict["verdict"] == "tie"
        assert words in verdict["sentence"]


def test_without_sacrebleu_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(UsageError, match=r"hiddenstate\[tasks\]"):
        scoring.judges()


def test_a_recipe_decides_the_parts() -> None:
    symbols = Symbols.fit(["abc"]), Symbols.fit(["xyz"])

    def spec(**settings: object):  # type: ignore[no-untyped-def]
        return spec_of(*symbols, read_recipe(None, {"tasks": ["translate"], **settings}))

    usual = spec()
    assert usual.context == "general"
    assert usual.tied
    (encoder,), (decoder,) = usual.encoder, usual.decoder
    assert isinstance(encoder, LayerSpec)
    assert encoder.bidirectional
    assert usual.memory_size == decoder.cell["hidden_size"]
    transformer = spec(cell="attention", hidden_size=32, layers=3)
    assert transformer.context == "cross"
    assert isinstance(transformer.decoder[0], TransformerSpec)
    assert transformer.decoder[0].blocks == 3
    plain = spec(**{"model.bidirectional": False, "pairs.context": "first_state", "layers": 2})
    assert len(plain.decoder) == 2
    assert plain.memory_size == 320
    assert spec(**{"pairs.context": "dot", "input_feeding": True, "model.tied": False}).stepwise


def test_it_learns_to_count_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    import hiddenstate

    file = written(tmp_path, counted())
    settings = {"hidden_size": 32, "embedding_size": 16, "pairs.unit": "words", "dropout": 0.0}
    more = {"input_dropout": 0.0, "learning_rate": 0.02, "epochs": 14, "batch_size": 16}
    model = fit(file, tmp_path / "run", tasks=["translate"], threads=1, **settings, **more)
    scores = model.metrics["scores"]
    assert scores["part"] == "test"
    assert scores["bleu"] > scores["floors"]["nearest_source"]["bleu"] + 20
    again = hiddenstate.load(tmp_path / "run")
    assert again.artifact.fingerprint == model.artifact.fingerprint
    sources, targets = zip(*counted(40, seed=9))
    said = again.translate([*sources, " "])
    assert said[-1].text == ""
    assert np.mean([one.text == other for one, other in zip(said, targets)]) > 0.6
    assert again.evaluate(written(tmp_path, counted(30, 5), "more.tsv"))["tasks"]
    looked = again.alignment("1 2 3")
    assert looked.source == ("1", "2", "3")
    assert looked.target[-1] == "<end>"
    np.testing.assert_allclose(looked.weights.sum(axis=1), 1.0, rtol=1e-5)
    assert again.alignment("1 2", "eins").weights.shape == (2, 2)
    assert again.predict(["7 7"])["translation"].len() == 1


def test_parts_come_from_files_and_repetitions_go(tmp_path: Path) -> None:
    rows = counted(60)
    file = written(tmp_path, [*rows[:40], rows[0]])
    test, valid = written(tmp_path, rows[38:50], "test.tsv"), written(tmp_path, rows[50:], "v.tsv")
    recipe = read_recipe(
        None,
        {
            "tasks": ["translate"],
            "split.test_file": str(test),
            "pairs.validation_file": str(valid),
            "pairs.unit": "words",
        },
    )
    told: list[str] = []
    ready = prepare(file, recipe, told.append)
    assert [len(part) for part in ready.parts] == [38, 10, 12]
    assert told == [
        "Dropped 1 pair: repetitions of an earlier one.",
        "Dropped 2 training pairs: a held-back part has them too.",
    ]
    model = ready.with_recipe(read_recipe(recipe, {"pairs.scheduled_sampling": 0.25})).build()
    assert model.own_share(1.0) == 0.25
    assert ready.build().own_share is None
    assert ready.identity() == prepare(file, recipe, told.append).identity()
    kept = read_recipe(recipe, {"pairs.keep_repeated": True})
    assert len(prepare(file, kept, told.append).parts[0]) == 41


def test_what_a_translator_does_not_have_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, counted(40))
    for name, value in (
        ("model.residual", True),
        ("split.column", "part"),
        ("pairs.test_target", "t.txt"),
    ):
        recipe = read_recipe(None, {"tasks": ["translate"], name: value})
        with pytest.raises(UsageError, match=name):
            prepare(file, recipe, lambda _: None)
    few = written(tmp_path, counted(5), "few.tsv")
    with pytest.raises(DataError, match="left to train on"):
        prepare(few, read_recipe(None, {"tasks": ["translate"]}), lambda _: None)


def test_a_batch_without_pairs_costs_nothing() -> None:
    symbols = Symbols.fit(["abc"]), Symbols.fit(["xyz"])
    codes = [each.encode(text) for each, text in zip(symbols, ("ab", "zyx"))]
    feed = PairFeed([codes[0]], [codes[1]])
    for context in ("every_step", "additive", "general", "cross"):
        cell = "attention" if context == "cross" else "gru"
        settings = {"cell": cell, "hidden_size": 8, "pairs.context": context}
        recipe = read_recipe(None, {"tasks": ["translate"], **settings})
        model = Translator(spec_of(*symbols, recipe))
        sums, steps, _ = model.losses(feed.batch(np.arange(0)))
        assert (float(sums.detach()), int(steps)) == (0.0, 0)
        sums, steps, _ = model.losses(feed.batch(np.arange(1)))
        assert int(steps) == 4 == feed.events
