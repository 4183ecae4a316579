"""Laws of labels: of the floors, of tokens as inputs, and of what a fitted model says."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier

from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.schema import Tokens
from hiddenstate.schema.tokens import VIEWS
from hiddenstate.tasks import score
from hiddenstate.tasks.class_ngram import ClassNGram
from hiddenstate.tasks.label_floors import READERS, Frequent, LabelFloors, TokenNGram
from hiddenstate.tasks.labels import NO_LABEL, Given, Guess, judge_labels, log_softmax
from hiddenstate.tasks.naive_bayes import NaiveBayes
from hiddenstate.tasks.series_floors import FrameBayes, Nearest

CLASSES = 4
WORDS = np.array(["ann", "ran", "to", "the", "old", "house", "again", "?"], dtype=object)


def some_texts(seed: int = 0, cases: int = 60) -> tuple[Given, np.ndarray]:
    """Texts whose words lean on their class; class 3 is never seen, some have no label."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, cases).astype(np.int32)
    texts = np.empty(cases, dtype=object)
    for case, label in enumerate(target):
        lean = np.ones(len(WORDS))
        lean[label] = 6
        texts[case] = " ".join(rng.choice(WORDS, rng.integers(0, 9), p=lean / lean.sum()))
    target[rng.random(cases) < 0.1] = NO_LABEL
    return Given.of_texts(texts), target


def some_series(seed: int = 0, cases: int = 60) -> tuple[Given, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, cases).astype(np.int32)
    lengths = rng.integers(0, 9, cases)
    frames = rng.normal(np.repeat(target, lengths)[:, None], 1.0, (lengths.sum(), 2))
    target[rng.random(cases) < 0.1] = NO_LABEL
    return Given(np.concatenate(([0], np.cumsum(lengths))), frames=frames), target


def of_steps(given: Given, target: np.ndarray) -> np.ndarray:
    return np.repeat(target, np.diff(given.offsets))


def fit(kind: str) -> tuple[Guess, Given, np.ndarray]:
    """Return a guess of each kind, other sequences, and their true labels."""
    make = some_series if kind in ("nearest", "frame_bayes") else some_texts
    (given, target), (other, truth) = make(), make(1)
    if kind in ("token_ngram", "frame_bayes"):
        target, truth = of_steps(given, target), of_steps(other, truth)
    fits: dict[str, Callable[[], Guess]] = {
        "frequent": lambda: Frequent(np.bincount(target[target >= 0], minlength=CLASSES), False),
        "naive_bayes": lambda: NaiveBayes.fit(given, target, CLASSES, 2, 0.3),
        "class_ngram": lambda: ClassNGram.fit(given, target, CLASSES, 3),
        "token_ngram": lambda: TokenNGram.fit(given, target, CLASSES, 2),
        "nearest": lambda: Nearest.fit(given, target, CLASSES),
        "frame_bayes": lambda: FrameBayes.fit(given, target, CLASSES),
    }
    return fits[kind](), other, truth


@pytest.mark.parametrize("kind", READERS)
def test_a_floor_gives_probabilities_and_predicts_a_class(kind: str) -> None:
    guess, given, truth = fit(kind)
    log_p, predicted = guess.log_probabilities(given)
    assert log_p.shape == (len(truth), CLASSES)
    assert np.isfinite(log_p).all()
    assert np.allclose(np.exp(log_p).sum(axis=1), 1)
    assert predicted.min() >= 0
    assert predicted.max() < 3  # the class without an example is never the answer
    known = truth >= 0
    if kind != "frequent":
        assert (predicted == truth)[known].mean() > 0.4


@pytest.mark.parametrize("kind", READERS)
def test_a_floor_is_the_same_after_writing_and_reading(kind: str) -> None:
    guess, given, _ = fit(kind)
    written = json.loads(json.dumps(guess.to_json()))
    again = READERS[written["type"]](written, guess.to_arrays())
    for before, after in zip(guess.log_probabilities(given), again.log_probabilities(given)):
        assert np.array_equal(before, after)


def test_naive_bayes_is_that_of_scikit_learn() -> None:
    (given, target), (other, _) = some_texts(), some_texts(1)
    assert given.texts is not None
    assert other.texts is not None
    kept = np.flatnonzero(target >= 0)
    ours = NaiveBayes.fit(given.select(kept), target[kept], 3, 1, 0.3).scores(other)
    vectors = CountVectorizer(tokenizer=str.split, token_pattern=None)
    counts = vectors.fit_transform(given.texts[kept])
    # Our prior counts half a case more for every class, so that none is impossible.
    prior = np.bincount(target[kept]) + 0.5
    theirs = MultinomialNB(alpha=0.3, class_prior=prior / prior.sum()).fit(counts, target[kept])
    expected = theirs.predict_log_proba(vectors.transform(other.texts))
    assert np.allclose(log_softmax(ours), expected)


def test_nearest_and_frame_are_those_of_scikit_learn() -> None:
    (given, target), (other, _) = some_series(), some_series(1)
    assert given.frames is not None
    assert other.frames is not None
    kept = np.flatnonzero((target >= 0) & (np.diff(given.offsets) > 0))
    nearest = Nearest.fit(given.select(kept), target[kept], 3)
    asked = np.stack(
        [
            np.concatenate((f.mean(0), f.std(0))) if len(f) else np.zeros(4)
            for f in np.split(other.frames, other.offsets[1:-1])
        ]
    )
    theirs = KNeighborsClassifier(1).fit(nearest.features, nearest.target)
    expected = theirs.predict((asked - nearest.center) / nearest.spread)
    assert np.array_equal(nearest.log_probabilities(other)[1], expected)
    steps = of_steps(given, target)
    known = steps >= 0
    bayes = GaussianNB(var_smoothing=0).fit(given.frames[known], steps[known])
    ours = FrameBayes.fit(given, steps, 3).log_probabilities(other)[0]
    assert np.allclose(ours, bayes.predict_log_proba(other.frames), atol=0.02)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("make", [some_texts, some_series])
def test_the_floors_of_a_task_judge_the_labelled_alone(
    make: Callable[..., tuple[Given, np.ndarray]], every_step: bool
) -> None:
    (given, target), (other, truth) = make(), make(1)
    if every_step:
        target, truth = of_steps(given, target), of_steps(other, truth)
        given = Given(given.offsets, given.pieces, given.frames)
        other = Given(other.offsets, other.pieces, other.frames)
    cut = 40
    names = tuple("abc")
    first, rest = given.select(np.arange(cut)), given.select(np.arange(cut, given.cases))
    at = given.offsets[cut] if every_step else cut
    floors = LabelFloors.fit(first, target[:at], rest, target[at:], names, every_step=every_step)
    truth[0] = -1  # a label that training never saw
    case = other.case_of_step if every_step else np.arange(other.cases)
    judged = floors.judge(other, case, case + 1, truth)
    again = LabelFloors.read(json.loads(json.dumps(floors.to_json())), floors.to_arrays())
    for name, each in again.judge(other, case, case + 1, truth).items():
        assert len(each.case) == (truth != NO_LABEL).sum()
        assert (~each.known).sum() == 1
        assert np.array_equal(each.log_probability, judged[name].log_probability, equal_nan=True)
    assert judged[floors.compared[0]].correct.mean() >= judged["most_frequent"].correct.mean()


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = tuple("abcde")
    p = rng.dirichlet(np.ones(5), 200)
    truth = rng.integers(-1, 5, 200).astype(np.int32)
    judged = judge_labels(np.arange(200), np.ones(200), truth, np.log(p), names)
    found = {name: each.value for name, each in score(judged, 10).metrics.items()}
    known = truth >= 0
    labels = np.arange(5)
    first = p.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(truth, first))
    assert found["log_loss"] == pytest.approx(
        oracle.log_loss(truth[known], p[known], labels=labels), rel=1e-6
    )
    expected = oracle.f1_score(truth, first, labels=labels, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)
    top = oracle.top_k_accuracy_score(truth[known], p[known], k=3, labels=labels)
    assert found["top_3"] == pytest.approx(top * known.mean())
    with pytest.raises(ShapeError):
        judge_labels(np.arange(200), np.ones(200), truth, np.log(p)[:, :4], names)


def test_tokens_one_at_a_time_are_tokens_together() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.choice(np.array(["Ann", "ran", "3.5", "?", "the", "Then", "then"]), 200)
    offsets = np.array([0, 0, 7, 8, 90, 90, 200])
    description = Tokens.fit(tokens[:150], np.array([0, 7, 8, 90, 150]))
    assert tuple(description.vocabularies) == tuple(VIEWS)
    whole = description.encode(tokens, offsets)
    one = []
    for start, end in pairwise(offsets):
        for place in range(start, end):
            pair = tokens[max(place - 1, start) : place + 1]
            one.append(description.encode(pair, np.array([0, len(pair)]))[-1])
    assert np.array_equal(whole, np.stack(one))
    assert (whole < description.code_sizes).all()
    again = Tokens.from_json(json.loads(json.dumps(description.to_json())))
    assert np.array_equal(again.encode(tokens, offsets), whole)


def test_an_unseen_word_still_has_its_spelling() -> None:
    known = Tokens.fit(["Running", "jumping", "Runners", "jumpers"], np.array([0, 4]))
    codes = dict(zip(known.vocabularies, known.encode(["Runing"], np.array([0, 1]))[0]))
    assert codes["word"] == codes["pair"] == 0
    assert codes["beginning"] > 0
    assert codes["ending"] > 0
    assert known.unknowns(["Runing", "RUNNING"]) == {"Runing": 1}
    with pytest.raises(SpecError, match="word first"):
        Tokens.from_json({"unit": "words", "views": [{"name": "shape", "symbols": []}]})
