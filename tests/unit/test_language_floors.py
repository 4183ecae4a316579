"""What a language model has to beat: counts, checked against plain loops and a known figure."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hiddenstate import tasks
from hiddenstate.data.text import read_texts, split_texts
from hiddenstate.schema import Symbols
from hiddenstate.schema.documents import BOUNDARY, TextCodes
from hiddenstate.tasks.language import LanguageFloors, SymbolJudge, blocks_of

DOCUMENTS = [*["abracadabra", "abrabra", "cad", "abra"] * 3, "bracab", "dadab", "cabrad", "dabrac"]
UNSEEN = ["abracab", "zab", "a", "dadabrac", "cabradab"]


def naive(training: TextCodes, text: TextCodes, size: int, context: int) -> list[float]:
    """Witten-Bell in plain loops; nan for an unknown symbol."""
    counts: dict[tuple[int, ...], Counter[int]] = {}
    for history, target in histories(training):
        for order in range(min(context, len(history)) + 1):
            counts.setdefault(history[len(history) - order :], Counter())[target] += 1
    found = []
    for history, target in histories(text):
        p = 1 / size
        for order in range(min(context, len(history)) + 1):
            behind = history[len(history) - order :]
            seen = counts.get(behind, Counter())
            # A context that was seen once is not made longer.
            shorter = counts.get(behind[1:], Counter()) if order else seen
            if not seen or (order and sum(shorter.values()) < 2):
                break
            p = (seen[target] + len(seen) * p) / (sum(seen.values()) + len(seen))
        found.append(math.log(p) if target else math.nan)
    return found


def histories(text: TextCodes) -> list[tuple[tuple[int, ...], int]]:
    found = []
    for start, length in zip(text.starts, text.lengths):
        codes = [int(code) or -1 for code in text.codes[start : start + length + 1]]
        found += [(tuple(codes[: t + 1]), max(codes[t + 1], 0)) for t in range(length)]
    return found


def codes(documents: list[str], ends: bool = True) -> tuple[TextCodes, Symbols]:
    symbols = Symbols.fit(DOCUMENTS, specials=(BOUNDARY,))
    return TextCodes.of(documents, symbols, ends=ends), symbols


@pytest.mark.parametrize("ends", [True, False])
def test_the_ngram_is_that_of_plain_loops(ends: bool) -> None:
    (training, symbols), (text, _) = codes(DOCUMENTS, ends), codes(UNSEEN, ends)
    floors = LanguageFloors.fit(training, None, training, "characters", len(symbols))
    judged = floors.judge(text)
    expected = naive(training, text, len(symbols), floors.context)
    assert floors.context == 4
    np.testing.assert_allclose(judged["ngram"].log_probability, expected, rtol=1e-5)
    assert int((~judged["ngram"].known).sum()) == 1
    alone = naive(training, text, len(symbols), 0)
    np.testing.assert_allclose(judged["most_frequent"].log_probability, alone, rtol=1e-5)


def test_probabilities_sum_to_one() -> None:
    (training, symbols), (text, _) = codes(DOCUMENTS), codes(["abrx"])
    floors = LanguageFloors.fit(training, None, training, "characters", len(symbols))
    total = 0.0
    for code in range(1, len(symbols)):
        changed = text.codes.copy()
        changed[-1] = code
        asked = TextCodes(changed, text.starts, text.lengths)
        total += math.exp(floors.judge(asked)["ngram"].log_probability[-1])
    # What is missing is what the unknown symbol is given, which never counts.
    assert 0.99 < total < 1.0


def test_the_context_is_chosen_on_validation_and_kept() -> None:
    (training, symbols), (validation, _) = codes(DOCUMENTS), codes(["cabbage bad"])
    floors = LanguageFloors.fit(training, validation, training, "characters", len(symbols))
    assert floors.context < 4
    again = LanguageFloors.read(floors.to_json(), floors.to_arrays())
    for name, judged in floors.judge(validation).items():
        kept = again.judge(validation)[name]
        np.testing.assert_array_equal(judged.log_probability, kept.log_probability)
        np.testing.assert_array_equal(judged.predicted, kept.predicted)


def test_scores_of_symbols_hang_together() -> None:
    text, symbols = codes(DOCUMENTS)
    judge = SymbolJudge(text)
    rng = np.random.default_rng(0)
    log_p = np.log(rng.dirichlet(np.ones(len(symbols)), size=text.steps))
    for start in range(0, text.steps, 7):
        judge.add(slice(start, start + 7), log_p[start : start + 7])
    judged = judge.result()
    truth = text.codes[text.rows + 1]
    metrics = {name: s.value for name, s in tasks.score(judged).metrics.items()}
    nats = -log_p[np.arange(text.steps), truth].mean()
    assert metrics["nats"] == pytest.approx(nats, rel=1e-5)
    assert metrics["bits"] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(nats), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx((log_p.argmax(1) == truth).mean())
    verdict = tasks.compare(judged, judged, "nats")
    assert verdict.verdict == "tie"


def test_a_bootstrap_draws_documents_or_blocks() -> None:
    many, _ = codes(DOCUMENTS * 2)
    few, _ = codes(["abra" * 100], ends=False)
    assert blocks_of(many).tolist() == many.documents.tolist()
    assert len(np.unique(blocks_of(few))) == 20
    assert np.all(np.diff(blocks_of(few)) >= 0)


@pytest.mark.skipif("HIDDENSTATE_DATA" not in os.environ, reason="HIDDENSTATE_DATA is not set")
def test_the_5_gram_of_tinyshakespeare_is_the_known_one() -> None:
    """1.669 nats on the last tenth, given all before it (data/README.md)."""
    texts = read_texts(Path(os.environ["HIDDENSTATE_DATA"]) / "tinyshakespeare" / "input.txt")
    training, _, test = split_texts(texts, validation=0.0, test=0.1)
    symbols = Symbols.fit(training.documents, specials=(BOUNDARY,))
    both = TextCodes.of(training.documents, symbols, ends=False)
    floors = LanguageFloors.fit(both, None, both, "characters", len(symbols))
    judged = floors.judge(TextCodes.of(test.documents, symbols, ends=False))["ngram"]
    assert -float(judged.log_probability.mean()) == pytest.approx(1.669, abs=0.005)
