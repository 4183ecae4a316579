"""The floors of labels: chosen on the validation part, then fitted on it and training together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.class_ngram import ClassNGram
from hiddenstate.tasks.contexts import FIRST_SYMBOL, UNSEEN, ContextTable, Histories
from hiddenstate.tasks.judged import JudgedClasses
from hiddenstate.tasks.labels import (
    NO_LABEL,
    Floats,
    Given,
    Guess,
    Ints,
    best_temperature,
    judge_labels,
    log_softmax,
)
from hiddenstate.tasks.naive_bayes import NaiveBayes
from hiddenstate.tasks.ngram import NGram
from hiddenstate.tasks.series_floors import FrameBayes, Nearest
from hiddenstate.tasks.task import Targets

# Characters times classes beyond which no n-gram is counted for every class: it takes a minute.
MOST_CHARACTERS = 40_000_000
LONGEST_ORDER = 5


@dataclass(frozen=True, eq=False)
class Frequent:
    """Every class as often as in training, whatever the input: counts [V]."""

    counts: NDArray[np.int64]
    every_step: bool

    description = "most frequent label"

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [M, V] and the predicted classes [M]."""
        rows = int(given.offsets[-1]) if self.every_step else given.cases
        row = log_softmax(np.log(self.counts[None] + 0.5))
        return np.repeat(row, rows, axis=0), np.full(rows, self.counts.argmax(), dtype=np.int32)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {"type": "frequent", "every_step": self.every_step}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts."""
        return {"counts": self.counts}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Frequent:
        """Read what `to_json` and `to_arrays` wrote."""
        return cls(arrays["counts"], value["every_step"])


@dataclass(frozen=True, eq=False)
class TokenNGram:
    """The label most often seen at this token (order 1), or behind this left neighbour (order 2).

    Contexts that training lacks fall back to shorter ones: see `tasks.ngram`.
    """

    tokens: tuple[str, ...]
    counts: NGram
    order: int

    @classmethod
    def fit(cls, given: Given, target: NDArray[Any], classes: int, order: int) -> TokenNGram:
        """Count the steps of known label, target [N]."""
        if given.pieces is None:
            raise AssertionError("this floor is for tokens")
        tokens = tuple(np.unique(given.pieces.astype(str)).tolist())
        truth = Targets(target.astype(np.int32), target >= 0)
        parts = [(_histories(given, tokens), truth)]
        return cls(tokens, NGram.fit(tokens, classes, parts, order), order)

    @property
    def description(self) -> str:
        """What it counts, in words."""
        return "label by token" + (" and the one before it" if self.order > 1 else "")

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [N, V] and the predicted classes [N]."""
        steps = int(given.offsets[-1])
        histories = _histories(given, self.tokens)
        log_p = np.zeros((steps, self.counts.table.classes))
        predicted = np.zeros(steps, dtype=np.int32)
        for rows in self.counts.chunks(steps):
            for order, (first, p) in enumerate(self.counts.predictions(histories, rows)):
                if order <= self.order:
                    predicted[rows], log_p[rows] = first, np.log(p)
        return log_p, predicted

    def to_json(self) -> dict[str, Any]:
        """Return tokens and order as JSON values."""
        return {"type": "token_ngram", "tokens": list(self.tokens), "order": self.order}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts."""
        return self.counts.table.to_arrays()

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> TokenNGram:
        """Read what `to_json` and `to_arrays` wrote."""
        tokens = tuple(value["tokens"])
        return cls(tokens, NGram(tokens, ContextTable.from_arrays(arrays)), value["order"])


READERS: Mapping[str, Callable[..., Guess]] = {
    "frequent": Frequent.read,
    "naive_bayes": NaiveBayes.read,
    "class_ngram": ClassNGram.read,
    "token_ngram": TokenNGram.read,
    "nearest": Nearest.read,
    "frame_bayes": FrameBayes.read,
}


@dataclass(frozen=True, eq=False)
class LabelFloors:
    """The floors of one task of labels by name, weakest first; the last one is compared with."""

    guesses: Mapping[str, Guess]
    classes: tuple[str, ...]
    description: str

    @property
    def compared(self) -> tuple[str, ...]:
        """The floors that verdicts are given for."""
        return (list(self.guesses)[-1],)

    @classmethod
    def fit(
        cls,
        training: Given,
        target: Ints,
        validation: Given,
        validation_target: Ints,
        classes: tuple[str, ...],
        *,
        every_step: bool,
    ) -> LabelFloors:
        """Fit the floors for labels of sequences [C] or, with every_step, of steps [N]."""
        both = training.followed_by(validation)
        truth = np.concatenate((target, validation_target))
        known = truth[truth >= 0]
        frequent = Frequent(np.bincount(known, minlength=len(classes)), every_step)
        guesses: dict[str, Guess] = {"most_frequent": frequent}
        judged = validation_target if (validation_target >= 0).any() else target
        asked = validation if judged is validation_target else training
        if training.frames is not None:
            kind = FrameBayes if every_step else Nearest
            scores = kind.fit(training, target, len(classes)).scores(asked)
            tuned = kind.fit(both, truth, len(classes))
            guesses["frame" if every_step else "nearest"] = replace(
                tuned, temperature=best_temperature(scores, judged)[0]
            )
        elif every_step:
            guesses["token"] = TokenNGram.fit(both, truth, len(classes), 1)
            guesses["token_pair"] = TokenNGram.fit(both, truth, len(classes), 2)
        else:
            best = _best_for_text(training, target, asked, judged, len(classes))
            guesses["ngram"] = best.refit(both, truth)
        last = list(guesses.values())[-1]
        said = f"{getattr(last, 'description', '')}, of the training and validation part"
        return cls(guesses, classes, said)

    def judge(
        self, given: Given, case: NDArray[Any], length: NDArray[Any], target: NDArray[Any]
    ) -> dict[str, JudgedClasses]:
        """Judge every floor on the labels target [M], with the sequence and length of each [M].

        Steps and sequences without a label (NO_LABEL) are left out.
        """
        scored = target != NO_LABEL
        found = {}
        for name, guess in self.guesses.items():
            log_p, predicted = guess.log_probabilities(given)
            found[name] = judge_labels(
                case[scored],
                length[scored],
                target[scored],
                log_p[scored],
                self.classes,
                predicted[scored],
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""
        return {
            "classes": list(self.classes),
            "description": self.description,
            "guesses": {name: guess.to_json() for name, guess in self.guesses.items()},
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays; names begin with the floor's."""
        return {
            f"{floor}/{name}": array
            for floor, guess in self.guesses.items()
            for name, array in guess.to_arrays().items()
        }

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> LabelFloors:
        """Read what `to_json` and `to_arrays` wrote."""
        guesses = {}
        for floor, settings in value["guesses"].items():
            prefix = f"{floor}/"
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            guesses[floor] = READERS[settings["type"]](settings, own)
        return cls(guesses, tuple(value["classes"]), str(value["description"]))


def _best_for_text(
    training: Given, target: Ints, asked: Given, judged: Ints, classes: int
) -> NaiveBayes | ClassNGram:
    """Return the guess, fitted on training, that is most often right on other sequences."""
    trials: list[tuple[NaiveBayes | ClassNGram, Floats]] = []
    for orders in (1, 2):
        for alpha in (0.1, 0.3, 1.0):
            bayes = NaiveBayes.fit(training, target, classes, orders, alpha)
            trials.append((bayes, bayes.scores(asked)))
    if training.texts is not None and sum(map(len, training.texts)) * classes <= MOST_CHARACTERS:
        ngram = ClassNGram.fit(training, target, classes, LONGEST_ORDER)
        for order, scores in enumerate(ngram.scores_by_order(asked)):
            trials.append((replace(ngram, order=order), scores))
    ranked = []
    for guess, scores in trials:
        temperature, loss = best_temperature(scores, judged)
        wrong = float((scores.argmax(axis=1) != judged)[judged >= 0].mean())
        ranked.append((wrong, loss, replace(guess, temperature=temperature)))
    return min(ranked, key=lambda each: each[:2])[2]


def _histories(given: Given, tokens: tuple[str, ...]) -> Histories:
    if given.pieces is None:
        raise AssertionError("this floor is for tokens")
    number = {token: FIRST_SYMBOL + place for place, token in enumerate(tokens)}
    symbols = [number.get(token, UNSEEN) for token in given.pieces]
    return Histories(np.array(symbols, dtype=np.int32), given.place_of_step.astype(np.int32))
